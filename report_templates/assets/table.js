"use strict";
// Tables: columns that sort, a search over the text, and only the rows in sight as elements, so that
// ten thousand rows are as quick as ten. Also makes tables that the page came with sortable.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  const ROW = 29;
  const SPARE = 12;
  const ON_PAPER = 20;
  const DEFAULT_WIDTH = "10ch";

  /**
   * `options`: {label, columns: [{key, title, value(i), text?(i), unit?, share?(i), width?, wide?, code?}],
   * sort: {key, descending}, search?: placeholder, onopen?(i), empty?: text, limit?: visible rows}.
   * A column is of numbers when it has a `unit` ("ns", "bytes", "ratio", "count", "samples").
   * Returns {update(length), element, select(i)}.
   */
  function create(parent, options) {
    const { columns } = options;
    const state = { length: 0, rows: [], query: "", sort: { ...options.sort }, chosen: -1 };
    const head = el("tr");
    const body = el("tbody");
    const table = el(
      "table",
      { class: "table is-virtual", "aria-label": options.label },
      el("thead", {}, head),
      body,
    );
    const wrap = el("div", { class: "table-wrap is-tall", tabindex: -1 }, table);
    wrap.style.maxHeight = `${(options.limit ?? 14) * ROW + 34}px`;
    const count = el("span", { class: "muted", "aria-live": "polite" });
    const root = el("div", { class: "datatable" });
    if (options.search) root.append(el("div", { class: "toolbar" }, searchBox(), count));
    root.append(wrap);
    parent.append(root);

    // A narrow window scrolls the table sideways; the wide column keeps room for some words.
    const least = columns.reduce(
      (sum, column) => sum + (column.wide ? 28 : parseInt(column.width ?? DEFAULT_WIDTH, 10)),
      0,
    );
    table.style.minWidth = `${least}ch`;
    columns.forEach((column) => {
      const button = el("button", {
        type: "button",
        text: column.title,
        on: { click: () => sortBy(column) },
      });
      const width = column.wide ? null : { width: column.width ?? DEFAULT_WIDTH };
      head.append(
        el("th", { scope: "col", class: column.unit ? "num" : null, style: width ?? {} }, button),
      );
    });

    function searchBox() {
      const input = el("input", {
        class: "input",
        type: "search",
        placeholder: options.search,
        "aria-label": options.search,
      });
      input.addEventListener("input", () => {
        state.query = input.value.trim().toLowerCase();
        arrange();
      });
      return input;
    }

    function sortBy(column) {
      const { sort } = state;
      if (sort.key === column.key) sort.descending = !sort.descending;
      else state.sort = { key: column.key, descending: Boolean(column.unit) };
      arrange();
    }

    const text = (column, i) =>
      column.text ? column.text(i) : column.unit ? pk.format.value(column.value(i), column.unit) : String(column.value(i));

    function arrange() {
      const { query } = state;
      const column = columns.find((c) => c.key === state.sort.key) ?? columns[0];
      const searched = columns.filter((c) => !c.unit);
      let rows = Array.from({ length: state.length }, (_, i) => i);
      if (query)
        rows = rows.filter((i) => searched.some((c) => text(c, i).toLowerCase().includes(query)));
      // The values once, not for every comparison; equal ones keep their order.
      const keys = new Map(rows.map((i) => [i, column.value(i)]));
      const direction = state.sort.descending ? -1 : 1;
      rows.sort((a, b) => direction * compare(keys.get(a), keys.get(b)) || a - b);
      state.rows = rows;
      columns.forEach((c, k) => {
        const order = c === column ? (state.sort.descending ? "descending" : "ascending") : null;
        if (order) head.children[k].setAttribute("aria-sort", order);
        else head.children[k].removeAttribute("aria-sort");
      });
      count.textContent = query
        ? `${pk.format.number(rows.length)} of ${pk.format.plural(state.length, "row")}`
        : pk.format.plural(state.length, "row");
      table.setAttribute("aria-rowcount", rows.length + 1);
      wrap.scrollTop = 0;
      render();
    }

    function render() {
      const { rows } = state;
      if (pk.theme.printing()) {
        onPaper(rows);
        return;
      }
      const visible = Math.ceil((wrap.clientHeight || 480) / ROW);
      const first = Math.max(0, Math.floor(wrap.scrollTop / ROW) - SPARE);
      const last = Math.min(rows.length, first + visible + 2 * SPARE);
      const focused = document.activeElement?.dataset?.row;
      const elements = [];
      for (let k = first; k < last; k++) elements.push(row(rows[k], k));
      body.replaceChildren(spacer(first), ...elements, spacer(rows.length - last));
      if (!rows.length) body.append(emptyRow());
      if (focused !== undefined)
        body.querySelector(`[data-row="${focused}"]`)?.focus({ preventScroll: true });
    }

    /** Paper does not scroll: the first rows, and how many more there are. */
    function onPaper(rows) {
      const elements = rows.slice(0, ON_PAPER).map(row);
      body.replaceChildren(...elements);
      if (!rows.length) body.append(emptyRow());
      if (rows.length <= ON_PAPER) return;
      const more = `and ${pk.format.plural(rows.length - ON_PAPER, "row")} more in the file`;
      body.append(el("tr", {}, el("td", { colspan: columns.length, class: "muted", text: more })));
    }

    const spacer = (n) =>
      el("tr", {
        "aria-hidden": "true",
        class: "spacer",
        style: { height: `${n * ROW}px` },
        hidden: n === 0,
      });

    function emptyRow() {
      const said = state.length ? "Nothing matches." : (options.empty ?? "Nothing here.");
      return el("tr", {}, el("td", { colspan: columns.length, class: "muted", text: said }));
    }

    function row(i, position) {
      const cells = columns.map((column) => cell(column, i));
      const attributes = {
        "data-row": i,
        "aria-rowindex": position + 2,
        "aria-selected": i === state.chosen ? "true" : null,
      };
      if (options.onopen) {
        attributes.tabindex = 0;
        attributes.on = {
          click: () => open(i),
          keydown: (event) => {
            if (event.key === "Enter") open(i);
            else if (event.key === "ArrowDown") move(event, position + 1);
            else if (event.key === "ArrowUp") move(event, position - 1);
          },
        };
      }
      return el("tr", attributes, ...cells);
    }

    function cell(column, i) {
      const content = text(column, i);
      const classes = [
        column.unit ? "num" : "",
        column.code ? "code" : "",
        column.share ? "bar" : "",
      ]
        .join(" ")
        .trim();
      const style = column.share ? { "--share": Math.min(Math.max(column.share(i), 0), 1) } : {};
      const full = column.unit ? null : content;
      return el(
        "td",
        { class: classes || null, style, title: full },
        el("span", { class: column.unit ? null : "truncate", text: content }),
      );
    }

    function move(event, position) {
      if (position < 0 || position >= state.rows.length) return;
      event.preventDefault();
      const top = position * ROW;
      if (top < wrap.scrollTop) wrap.scrollTop = top;
      else if (top + 2 * ROW > wrap.scrollTop + wrap.clientHeight)
        wrap.scrollTop = top + 2 * ROW - wrap.clientHeight;
      render();
      body.querySelector(`[data-row="${state.rows[position]}"]`)?.focus({ preventScroll: true });
    }

    function open(i) {
      select(i);
      options.onopen(i);
    }

    function select(i) {
      state.chosen = i;
      render();
    }

    pk.theme.on(render);
    let waiting = false;
    wrap.addEventListener("scroll", () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        render();
      });
    });

    return {
      element: root,
      select,
      /** Shows rows 0..length-1 as the columns' functions now give them. */
      update(length) {
        state.length = length;
        state.chosen = -1;
        arrange();
      },
      rows: () => state.rows,
    };
  }

  /** Numbers by size, texts by their characters; what is missing comes last when ascending. */
  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") {
      if (Number.isNaN(a) || Number.isNaN(b))
        return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
      return a - b;
    }
    const [left, right] = [String(a), String(b)];
    return left < right ? -1 : left > right ? 1 : 0;
  }

  /** Makes a table of the page sortable by a click on a heading. */
  function enhance(table) {
    const body = table.tBodies[0];
    const heads = [...(table.tHead?.rows[0]?.cells ?? [])];
    heads.forEach((head, k) => {
      const button = el("button", { type: "button", text: head.textContent.trim() });
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const descending =
          head.getAttribute("aria-sort") !== "descending" &&
          (head.classList.contains("num") || head.hasAttribute("aria-sort"));
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        const keyed = [...body.rows].map((row) => [key(row.cells[k]), row]);
        keyed.sort(([a], [b]) => (descending ? -1 : 1) * compare(a, b));
        body.append(...keyed.map(([, row]) => row));
      });
    });
  }

  function key(cell) {
    const value = cell?.dataset.value ?? cell?.textContent.trim() ?? "";
    return value !== "" && Number.isFinite(Number(value)) ? Number(value) : value;
  }

  pk.table = { create, enhance };
}
