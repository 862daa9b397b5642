"use strict";
// Summary: the whole capture over time, with the findings and spikes marked.
{
  const pk = (window.perfkit ??= {});

  pk.section("summary", (root, data) => {
    const slot = root.querySelector("[data-slot=timeline]");
    if (slot && data.timeline) pk.timeline.create(slot, data.timeline);
    return {};
  });
}
