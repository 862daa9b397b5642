"use strict";
// Starts the page: unpacks the data, loads Plotly, starts the sections, and wires what templates mark
// with attributes.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  async function loadPlotly() {
    const script = document.createElement("script");
    script.textContent = await pk.unpack.text("perfkit-plotly");
    document.head.append(script);
    if (!window.Plotly) throw new Error("Plotly did not start");
  }

  // ---- navigation ----

  function follow() {
    // The fragment holds the filter, so a link inside the page scrolls without becoming part of it.
    document.addEventListener("click", (event) => {
      const link = event.target.closest?.('a[href^="#"]');
      const target = link && document.getElementById(decodeURIComponent(link.hash.slice(1)));
      if (!target) return;
      event.preventDefault();
      pk.filter.setView("at", target.id);
      target.scrollIntoView();
      target.setAttribute("tabindex", "-1");
      target.focus({ preventScroll: true });
    });
    const links = [...document.querySelectorAll('.nav a[href^="#"]')];
    const observer = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          if (!isIntersecting) continue;
          only(links, target.id);
        }
      },
      { rootMargin: "-20% 0px -70% 0px" },
    );
    for (const link of links) {
      const target = document.getElementById(link.hash.slice(1));
      if (target) observer.observe(target);
    }
    // What is short and last never comes to where the others are read.
    addEventListener("scroll", () => {
      const { scrollHeight } = document.documentElement;
      if (scrollY + innerHeight >= scrollHeight - 2) only(links, links.at(-1)?.hash.slice(1));
    });
  }

  /** Marks the link of the section with this id as where the reader is. */
  function only(links, id) {
    for (const link of links) {
      if (link.hash === `#${id}`) mark(link);
      else link.removeAttribute("aria-current");
    }
  }

  /** Brings the link into sight, too, where the navigation scrolls sideways. */
  function mark(link) {
    link.setAttribute("aria-current", "true");
    const nav = link.parentElement;
    const centred = link.offsetLeft - nav.offsetLeft - (nav.clientWidth - link.offsetWidth) / 2;
    nav.scrollTo({ left: centred });
  }

  function scrollToLinked() {
    const id = pk.filter.view("at");
    if (id) document.getElementById(id)?.scrollIntoView();
  }

  // ---- what templates mark with attributes ----

  function enhance() {
    for (const table of document.querySelectorAll("table[data-sortable]")) pk.table.enhance(table);
    for (const list of document.querySelectorAll(".tabs[role=tablist]")) pk.dom.wireTabs(list);
    for (const button of document.querySelectorAll("[data-copy]")) {
      button.hidden = false;
      button.addEventListener("click", () => copy(button));
    }
  }

  async function copy(button) {
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed here";
    }
    setTimeout(() => (button.textContent = before), 1500);
  }

  async function start() {
    performance.mark("perfkit:start");
    enhance();
    follow();
    [pk.data] = await Promise.all([pk.unpack.data("perfkit-data"), loadPlotly()]);
    performance.mark("perfkit:loaded");
    pk.filterBar.start();
    pk.shortcuts.start();
    const drawn = pk.sections.start();
    scrollToLinked();
    await drawn;
    scrollToLinked();
    performance.mark("perfkit:ready");
    document.documentElement.dataset.perfkit = "ready";
  }

  start().catch((error) => {
    console.warn(error);
    const reason = pk.format.text(error?.message ?? error, 300);
    const text = `The charts of this report could not be started (${reason}). What is below is complete but does not follow the filter.`;
    document
      .querySelector("main")
      ?.prepend(el("p", { class: "card is-error", role: "alert", text }));
    document.documentElement.dataset.perfkit = "failed";
  });
}
