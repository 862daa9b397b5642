"use strict";
// Runs the scripts of the sections, each by itself: one that fails shows a card in its place and the
// rest of the page stands.
{
  const pk = (window.perfkit ??= {});
  const { el } = pk.dom;
  const registered = new Map();
  const sections = [];

  /** Says in the section what went wrong. */
  function fail(root, error) {
    console.warn(error);
    const reason = pk.format.text(error?.message ?? error, 300);
    const card = el(
      "div",
      { class: "card is-error", role: "alert" },
      el("h3", { text: "This part could not be drawn" }),
      el("p", { text: reason }),
    );
    // What the page came with, and what was drawn before, stays below.
    (root.querySelector("[data-slot]") ?? root).prepend(card);
  }

  /** One section's script: built when it comes near the window, then following the filter. */
  class Running {
    constructor(root, build, data) {
      this.root = root;
      this.build = build;
      this.data = data;
      this.stale = true;
      this.near = false;
    }

    run() {
      if (!this.stale || this.failed) return;
      this.stale = false;
      const start = performance.now();
      try {
        this.script ??= this.build(this.root, this.data) ?? {};
        const drawn = this.script.update?.(pk.filter.state);
        Promise.resolve(drawn).catch((error) => this.give(error));
      } catch (error) {
        this.give(error);
      }
      performance.measure(`perfkit:section ${this.root.id}`, { start });
    }

    give(error) {
      if (!this.failed) fail(this.root, error);
      this.failed = true;
    }
  }

  const pause = () => new Promise((resolve) => setTimeout(resolve, 0));

  /** What is in sight at once, the rest one after the other when there is time. */
  async function refresh() {
    for (const section of sections) if (section.near) section.run();
    await idle();
  }

  let running = false;
  async function idle() {
    if (running) return;
    running = true;
    for (const section of sections) {
      await pause();
      section.run();
    }
    running = false;
    if (sections.some((section) => section.stale && !section.failed)) await idle();
  }

  function watch() {
    const observer = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          const section = sections.find(({ root }) => root === target);
          section.near = isIntersecting;
          if (isIntersecting) section.run();
        }
      },
      { rootMargin: "200px" },
    );
    for (const { root } of sections) observer.observe(root);
    addEventListener("beforeprint", () => sections.forEach((section) => section.run()));
  }

  /** Starts every registered section that the page and its data have; resolves when all have run. */
  function start() {
    for (const [name, build] of registered) {
      const root = document.querySelector(`[data-section="${name}"]`);
      const data = pk.data[name];
      if (root && data) sections.push(new Running(root, build, data));
    }
    // In the order of the page, so that what is seen first is drawn first.
    const FOLLOWING = Node.DOCUMENT_POSITION_FOLLOWING;
    sections.sort((a, b) => (a.root.compareDocumentPosition(b.root) & FOLLOWING ? -1 : 1));
    pk.filter.on(() => {
      for (const section of sections) section.stale = true;
      refresh();
    });
    watch();
    return idle();
  }

  pk.section = (name, build) => registered.set(name, build);
  pk.sections = { start };
}
