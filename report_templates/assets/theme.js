"use strict";
// Light or dark: the reader's choice, else the system's. Runs in <head>, before the first paint.
{
  const pk = (window.perfkit ??= {});
  const KEY = "perfkit-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const listeners = [];

  // A file opened from disk may have no storage at all; then the choice lasts as long as the page.
  let choice = null;
  try {
    choice = localStorage.getItem(KEY);
  } catch {
    choice = null;
  }

  let printing = false;

  function current() {
    if (printing) return "light";
    if (choice === "light" || choice === "dark") return choice;
    return system.matches ? "dark" : "light";
  }

  function apply() {
    document.documentElement.dataset.theme = current();
    for (const button of document.querySelectorAll("[data-action=theme]")) label(button);
    for (const listener of listeners) listener(current());
  }

  function label(button) {
    const other = current() === "dark" ? "Light" : "Dark";
    button.textContent = other;
    button.setAttribute("aria-label", `${other} theme`);
    button.hidden = false;
  }

  function toggle() {
    choice = current() === "dark" ? "light" : "dark";
    try {
      localStorage.setItem(KEY, choice);
    } catch {
      // Not stored: see above.
    }
    apply();
  }

  /** Everything that is drawn is drawn again, light and as wide as paper is. */
  function print(on) {
    printing = on;
    document.documentElement.classList.toggle("is-paper", on);
    apply();
  }

  system.addEventListener("change", apply);
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  document.addEventListener("DOMContentLoaded", () => {
    for (const button of document.querySelectorAll("[data-action=theme]")) {
      button.addEventListener("click", toggle);
      label(button);
    }
  });
  document.documentElement.dataset.theme = current();

  pk.theme = {
    current,
    toggle,
    /** Whether what is drawn now is for paper. */
    printing: () => printing,
    on: (listener) => listeners.push(listener),
    /** The value of a CSS custom property in the present theme. */
    colour: (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim(),
  };
}
