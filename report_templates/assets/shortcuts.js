"use strict";
// Keys for the whole page, and the list of all keys on `?`.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  const GROUPS = [
    [
      "Page",
      [
        ["?", "This list"],
        ["j  k", "Next section, previous section"],
        ["/", "Search in this section"],
        ["1  2  3", "Flame graph, top table, callers and callees"],
        ["f", "To the filter"],
        ["x", "Clear the filter"],
        ["d", "Light or dark"],
        ["Esc", "Close"],
      ],
    ],
    [
      "Flame graph, when it has the focus",
      [
        ["← → ↑ ↓", "Move between frames"],
        ["Enter", "Zoom into a frame"],
        ["Backspace", "Zoom back"],
        ["/", "Search"],
        ["Esc", "All of it again"],
      ],
    ],
    [
      "Lists, tabs and charts",
      [
        ["Tab", "To the next control"],
        ["↑ ↓  Enter", "Move in a list of requests, open one"],
        ["← →", "Other tab; move a slider"],
        ["Enter", "Choose a box of the dependency graph; sort by a column"],
      ],
    ],
  ];
  let dialog = null;

  function list() {
    const parts = GROUPS.map(([title, keys]) =>
      el(
        "div",
        {},
        el("h3", { text: title }),
        el(
          "dl",
          { class: "pairs" },
          ...keys.flatMap(([key, what]) => [
            el("dt", {}, ...key.split("  ").flatMap((one) => [el("kbd", { text: one }), " "])),
            el("dd", { text: what }),
          ]),
        ),
      ),
    );
    const close = el("button", {
      class: "button",
      type: "button",
      text: "Close",
      on: { click: () => dialog.close() },
    });
    const heading = el("h2", { id: "shortcuts-title", text: "Keys" });
    dialog = el("dialog", { class: "shortcuts", "aria-labelledby": "shortcuts-title" }, heading, ...parts, close);
    document.body.append(dialog);
  }

  function show() {
    if (!dialog) list();
    if (!dialog.open) dialog.showModal();
  }

  /** The section at the top of the window. */
  function current(sections) {
    const line = innerHeight * 0.3;
    const at = sections.findLastIndex((section) => section.getBoundingClientRect().top <= line);
    return Math.max(at, 0);
  }

  function go(step) {
    const sections = [...document.querySelectorAll("main > section")];
    const next = sections[Math.min(Math.max(current(sections) + step, 0), sections.length - 1)];
    next.scrollIntoView();
    next.setAttribute("tabindex", "-1");
    next.focus({ preventScroll: true });
    pk.filter.setView("at", next.id);
  }

  function search() {
    const sections = [...document.querySelectorAll("main > section")];
    const inputs = sections[current(sections)].querySelectorAll("input[type=search]");
    [...inputs].find((input) => input.offsetParent !== null)?.focus();
  }

  /** Shows a view of the flame graph of this section, or of the next below it that is in sight. */
  function tab(number) {
    const sections = [...document.querySelectorAll("main > section")];
    for (const section of sections.slice(current(sections))) {
      if (section.getBoundingClientRect().top > innerHeight) return;
      const lists = [...section.querySelectorAll('.tabs[aria-label="Views of the flame graph"]')];
      const shown = lists.find((list) => list.offsetParent !== null);
      if (shown) return shown.querySelectorAll("button")[number - 1]?.click();
    }
  }

  const ACTIONS = {
    1: () => tab(1),
    2: () => tab(2),
    3: () => tab(3),
    "?": show,
    j: () => go(+1),
    k: () => go(-1),
    "/": search,
    f: () => document.querySelector(".filter-bar select, .filter-bar input")?.focus(),
    x: () => pk.filter.clear(),
    d: () => pk.theme.toggle(),
  };

  function start() {
    for (const button of document.querySelectorAll("[data-action=shortcuts]")) {
      button.hidden = false;
      button.addEventListener("click", show);
    }
    document.addEventListener("keydown", (event) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
      if (dialog?.open || event.target.closest?.("input:not([type=range]), select, textarea")) return;
      if (!Object.hasOwn(ACTIONS, event.key)) return;
      event.preventDefault();
      ACTIONS[event.key]();
    });
  }

  pk.shortcuts = { start };
}
