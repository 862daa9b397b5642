"use strict";
// Elements from data. Text goes in as text: nothing here, or in any other script, parses HTML.
{
  const pk = (window.perfkit ??= {});

  /** An element; `attributes` may hold `class`, `text`, `on: {event: listener}`, `style: {…}`. */
  function el(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "class") element.className = value;
      else if (key === "text") element.textContent = value;
      else if (key === "on") listen(element, value);
      else if (key === "style") style(element, value);
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  function listen(element, listeners) {
    for (const [event, listener] of Object.entries(listeners)) {
      element.addEventListener(event, listener);
    }
  }

  function style(element, properties) {
    for (const [name, value] of Object.entries(properties)) element.style.setProperty(name, value);
  }

  /** A select; `choices` are [value, text] pairs. */
  function select(label, choices, value, onchange) {
    const options = choices.map(([key, text]) =>
      el("option", { value: key, text, selected: key === value }),
    );
    const on = { change: (event) => onchange(event.target.value) };
    return el("select", { class: "select", "aria-label": label, on }, ...options);
  }

  function button(text, onclick, attributes = {}) {
    return el("button", {
      class: "button is-small",
      type: "button",
      text,
      on: { click: onclick },
      ...attributes,
    });
  }

  /** Buttons of which one is pressed. Returns the group, with `set(value)`. */
  function choice(label, choices, value, onchange) {
    const buttons = choices.map(([key, text]) =>
      button(text, () => (set(key), onchange(key)), { "aria-pressed": String(key === value) }),
    );
    const group = el("div", { class: "group", role: "group", "aria-label": label }, ...buttons);
    function set(chosen) {
      buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(choices[i][0] === chosen)));
    }
    group.set = set;
    return group;
  }

  let ids = 0;

  /** Tabs over panels: `[[title, panel, onshow?], …]`. Arrow keys move between the tabs. */
  function tabs(label, entries, attributes = {}) {
    const list = el("div", { class: "tabs", role: "tablist", "aria-label": label, ...attributes });
    entries.forEach(([title, panel], i) => {
      panel.id ||= `pk-panel-${++ids}`;
      panel.setAttribute("role", "tabpanel");
      panel.hidden = i > 0;
      list.append(
        el("button", {
          class: "tab",
          type: "button",
          role: "tab",
          text: title,
          "aria-controls": panel.id,
          "aria-selected": String(i === 0),
          tabindex: i === 0 ? 0 : -1,
        }),
      );
    });
    wireTabs(list, (i) => entries[i][2]?.());
    list.show = (i) => list.children[i].click();
    return list;
  }

  /** Makes `.tabs` work: the panels are those that `aria-controls` names. */
  function wireTabs(list, onshow = () => {}) {
    const all = [...list.querySelectorAll("[role=tab]")];
    const mark = (tab) => {
      for (const other of all) {
        const chosen = other === tab;
        other.setAttribute("aria-selected", String(chosen));
        other.tabIndex = chosen ? 0 : -1;
        const panel = document.getElementById(other.getAttribute("aria-controls"));
        if (panel) panel.hidden = !chosen;
      }
    };
    const show = (tab) => {
      mark(tab);
      onshow(all.indexOf(tab));
    };
    mark(all.find((tab) => tab.getAttribute("aria-selected") === "true") ?? all[0]);
    all.forEach((tab, i) => {
      tab.addEventListener("click", () => show(tab));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = all[(i + step + all.length) % all.length];
        next.focus();
        show(next);
      });
    });
  }

  /** A floating box beside the pointer, never outside the window. One for the whole page. */
  let tip = null;
  function showTip(content, x, y) {
    tip ??= document.body.appendChild(el("div", { class: "tip", role: "tooltip" }));
    tip.replaceChildren(content);
    tip.hidden = false;
    const { offsetWidth: width, offsetHeight: height } = tip;
    const left = x + 14 + width > innerWidth - 8 ? x - 14 - width : x + 14;
    const top = y + 16 + height > innerHeight - 8 ? y - 12 - height : y + 16;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, top)}px`;
  }
  const hideTip = () => tip && (tip.hidden = true);

  /** Text of any length: its start, and all of it on demand. */
  function long(content, shown = 400) {
    const whole = pk.format.text(content);
    if (whole.length <= shown) return document.createTextNode(whole);
    const size = pk.format.plural(whole.length, "character");
    return el(
      "details",
      { class: "more" },
      el("summary", { text: `${whole.slice(0, shown)}… (${size})` }),
      el("pre", { class: "code", tabindex: 0, text: whole }),
    );
  }

  /** A title and rows of [name, value] for the tip or a status line. */
  function facts(title, rows, remark) {
    const list = el("dl", { class: "pairs" });
    for (const [key, value] of rows)
      list.append(el("dt", { text: key }), el("dd", { text: value }));
    return el(
      "div",
      {},
      el("div", { class: "tip-title", text: title }),
      list,
      remark ? el("p", { class: "note", text: remark }) : null,
    );
  }

  pk.dom = { el, select, button, choice, tabs, wireTabs, showTip, hideTip, facts, long };
}
