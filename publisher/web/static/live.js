// Has the parts of a page that change drawn again when the publisher says that something did.
"use strict";
(function () {
  const live = document.getElementById("live");
  const parts = () => document.querySelectorAll("[data-live]");
  if (!live || parts().length === 0 || !window.EventSource) return;
  const names = (d) => Array.from(d.querySelectorAll("[data-live]"), (p) => p.id + " " + (p.dataset.of || "")).join();
  const targets = "a, button, summary, input, select";
  let busy = false, again = false;

  function put(old, now) {
    const open = new Set(Array.from(old.querySelectorAll("details[open]"), (d) => d.id));
    for (const d of now.querySelectorAll("details")) d.open = open.has(d.id);
    if (old.outerHTML === now.outerHTML) return;
    for (const box of old.querySelectorAll("form input[name]:not([type=hidden])")) {
      const same = now.querySelector(`form[action="${CSS.escape(box.form.getAttribute("action"))}"] [name="${CSS.escape(box.name)}"]`);
      if (same) same.value = box.value;
    }
    const at = Array.from(old.querySelectorAll(targets)).indexOf(document.activeElement);
    const scrolled = Array.from(old.querySelectorAll(".scroll"), (s) => s.scrollLeft);
    old.replaceWith(now);
    now.querySelectorAll(".scroll").forEach((s, i) => { s.scrollLeft = scrolled[i] || 0; });
    if (at >= 0) {
      const next = now.querySelectorAll(targets)[at];
      if (next) next.focus({preventScroll: true});
    }
  }

  async function look() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, {cache: "no-cache", redirect: "error"});
      if (answer.status === 401) { location.reload(); return; }
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        if (names(page) !== names(document)) { location.reload(); return; } // there is a channel more, or less
        for (const old of parts()) put(old, document.adoptNode(page.getElementById(old.id)));
        live.textContent = "Live";
      }
    } catch (e) {
      live.textContent = "Not connected";
    } finally {
      busy = false;
      if (again) { again = false; look(); }
    }
  }

  let events = null;
  function follow() {
    events = new EventSource("/events");
    events.addEventListener("open", () => { live.textContent = "Live"; look(); });
    events.addEventListener("changed", look);
    events.addEventListener("error", () => {
      live.textContent = "Not connected";
      if (events.readyState === EventSource.CLOSED) setTimeout(follow, 30000);
    });
  }
  // A page nobody looks at keeps no connection.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { events.close(); } else { follow(); }
  });
  follow();
})();
