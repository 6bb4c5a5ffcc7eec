"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));

  // Theme: follows the system until the reader chooses.
  const themes = ["auto", "light", "dark"];
  const button = document.getElementById("theme");
  if (button) {
    let chosen = "auto";
    try { chosen = localStorage.getItem("corelab-theme") || "auto"; } catch { /* not allowed for this file */ }
    const show = () => {
      if (chosen === "auto") root.removeAttribute("data-theme"); else root.dataset.theme = chosen;
      button.textContent = `Theme: ${chosen}`;
    };
    button.hidden = false;
    button.addEventListener("click", () => {
      chosen = themes[(themes.indexOf(chosen) + 1) % themes.length];
      try { localStorage.setItem("corelab-theme", chosen); } catch { /* as above */ }
      show();
    });
    show();
  }

  // Tables: sort by a click on a heading, filter by text.
  const value = (cell) => {
    const given = cell.dataset.sort ?? cell.textContent.trim();
    const number = Number(given);
    return given !== "" && Number.isFinite(number) ? number : given.toLowerCase();
  };
  const compare = (a, b) => {
    if (a === "" || b === "") return a === b ? 0 : a === "" ? 1 : -1;
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    if (typeof b === "number") return 1;
    return a.localeCompare(b, "en", { numeric: true });
  };
  for (const table of all("table[data-sortable]")) {
    const heads = all("thead th", table);
    const body = table.tBodies[0];
    heads.forEach((head, column) => {
      const control = head.querySelector("button");
      if (!control) return;
      control.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => { if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = Array.from(body.rows).map((row) => [value(row.cells[column]), row]);
        rows.sort((a, b) => (a[0] === "" || b[0] === "" ? compare(a[0], b[0]) : (down ? -1 : 1) * compare(a[0], b[0])));
        body.append(...rows.map((pair) => pair[1]));
      });
    });
    if (body && body.rows.length > 15) {
      const tools = document.createElement("div");
      const label = document.createElement("label");
      const input = document.createElement("input");
      const count = document.createElement("span");
      tools.className = "tools";
      label.textContent = "Filter rows ";
      input.type = "search";
      input.autocomplete = "off";
      count.setAttribute("role", "status");
      label.append(input);
      tools.append(label, count);
      table.closest(".scroll").before(tools);
      const total = body.rows.length;
      const apply = () => {
        const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
        let shown = 0;
        for (const row of body.rows) {
          const text = row.textContent.toLowerCase();
          row.hidden = !words.every((word) => text.includes(word));
          if (!row.hidden) shown += 1;
        }
        count.textContent = words.length ? `${shown} of ${total} rows` : `${total} rows`;
      };
      input.addEventListener("input", apply);
      apply();
    }
  }

  // Gallery: filter by text and by what is flagged.
  for (const gallery of all(".gallery[data-filter]")) {
    const cards = all(".card", gallery);
    if (cards.length < 2) continue;
    const tools = document.createElement("div");
    tools.className = "tools";
    const label = document.createElement("label");
    label.textContent = "Find a subject ";
    const input = document.createElement("input");
    input.type = "search";
    label.append(input);
    const flags = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    flags.append(box, " flagged only");
    const count = document.createElement("span");
    count.setAttribute("role", "status");
    tools.append(label, flags, count);
    gallery.before(tools);
    const apply = () => {
      const wanted = input.value.toLowerCase().trim();
      let shown = 0;
      for (const card of cards) {
        card.hidden = !(card.dataset.text.toLowerCase().includes(wanted) && (!box.checked || card.dataset.flag));
        if (!card.hidden) shown += 1;
      }
      count.textContent = `${shown} of ${cards.length} subjects`;
    };
    input.addEventListener("input", apply);
    box.addEventListener("change", apply);
    apply();
  }

  // Points of a figure say what they are: under the pointer, and by the arrow keys on the figure.
  for (const svg of all("svg.drawn")) {
    const points = all(".point", svg);
    if (!points.length) continue;
    const tip = document.createElement("output");
    tip.className = "tip";
    tip.hidden = true;
    svg.after(tip);
    const hide = () => { tip.hidden = true; points.forEach((point) => point.classList.remove("chosen")); };
    const show = (point) => {
      hide();
      point.classList.add("chosen");
      tip.textContent = point.querySelector("title").textContent;
      tip.hidden = false;
    };
    svg.addEventListener("pointerover", (event) => { const point = event.target.closest(".point"); if (point) show(point); });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("focusin", (event) => { const point = event.target.closest(".point"); if (point) show(point); });
    svg.addEventListener("focusout", hide);
    svg.tabIndex = 0;
    let place = -1;
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step && event.key !== "Escape") return;
      event.preventDefault();
      if (!step) { hide(); return; }
      place = (place + step + points.length) % points.length;
      show(points[place]);
    });
  }

  // Whether the products were verified is known after this page was written.
  const verified = document.querySelector("[data-verified]");
  if (verified) {
    const script = document.createElement("script");
    script.src = verified.dataset.verified;
    script.onload = () => {
      const found = globalThis.VERIFIED;
      if (!found) return;
      verified.querySelector("b").textContent = found.words;
      verified.className = found.css;
    };
    document.head.append(script);
  }

  // The contents list marks the section in view.
  const links = new Map(all("nav.toc a[href^='#']").map((link) => [link.getAttribute("href").slice(1), link]));
  const sections = all("main section[id]").filter((section) => links.has(section.id));
  if (sections.length && "IntersectionObserver" in window) {
    const mark = () => {
      let current = sections[0];
      for (const section of sections) if (section.getBoundingClientRect().top < 120) current = section;
      for (const [id, link] of links) {
        if (id === current.id) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
      }
    };
    new IntersectionObserver(mark, { rootMargin: "-60px 0px -60% 0px", threshold: [0, 0.01, 1] });
    addEventListener("scroll", mark, { passive: true });
    mark();
  }
  globalThis.REPORT_READY = true;
})();
