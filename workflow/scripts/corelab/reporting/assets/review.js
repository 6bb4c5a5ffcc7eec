"use strict";
(() => {
  const known = JSON.parse(document.getElementById("known").textContent);
  const columns = known.columns;
  let decisions = known.decisions;
  let added = 0;
  const served = location.protocol.startsWith("http");
  const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
  const state = document.getElementById("desk-state");
  const reviewer = document.getElementById("reviewer");
  const say = (text) => { state.textContent = text; };

  // SHA-256 (FIPS 180-4), because a page opened as a file need not be given the browser's own.
  const rotate = (x, n) => (x >>> n) | (x << (32 - n));
  const primes = [];
  for (let n = 2; primes.length < 64; n += 1) if (primes.every((p) => n % p)) primes.push(n);
  const fraction = (x) => Math.floor((x - Math.floor(x)) * 4294967296) | 0;
  const K = primes.map((p) => fraction(Math.cbrt(p)));
  const sha256 = (text) => {
    const bytes = new TextEncoder().encode(text);
    const blocks = new Uint8Array(((bytes.length + 72) >> 6) << 6);
    blocks.set(bytes);
    blocks[bytes.length] = 0x80;
    const view = new DataView(blocks.buffer);
    view.setUint32(blocks.length - 4, bytes.length * 8);
    view.setUint32(blocks.length - 8, Math.floor(bytes.length / 536870912));
    const h = primes.slice(0, 8).map((p) => fraction(Math.sqrt(p)));
    const w = new Int32Array(64);
    for (let start = 0; start < blocks.length; start += 64) {
      for (let t = 0; t < 64; t += 1) {
        if (t < 16) { w[t] = view.getInt32(start + 4 * t); continue; }
        const a = w[t - 15], b = w[t - 2];
        w[t] = (w[t - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ (a >>> 3)) + w[t - 7] + (rotate(b, 17) ^ rotate(b, 19) ^ (b >>> 10))) | 0;
      }
      let [a, b, c, d, e, f, g, i] = h;
      for (let t = 0; t < 64; t += 1) {
        const first = (i + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + K[t] + w[t]) | 0;
        const second = ((rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
        i = g; g = f; f = e; e = (d + first) | 0; d = c; c = b; b = a; a = (first + second) | 0;
      }
      [a, b, c, d, e, f, g, i].forEach((value, k) => { h[k] = (h[k] + value) | 0; });
    }
    return h.map((value) => (value >>> 0).toString(16).padStart(8, "0")).join("");
  };
  globalThis.deskSha256 = sha256;

  const clean = (text) => text.split(/\s+/).filter(Boolean).join(" ");
  const chained = (given) => {
    const last = decisions[decisions.length - 1];
    const line = {
      number: decisions.length + 1, ...given, reason: clean(given.reason), decided_by: clean(given.decided_by),
      decided_at: new Date().toISOString().replace(/\.\d+Z$/, "Z"), previous_sha256: last ? last.sha256 : known.first,
    };
    line.sha256 = sha256(columns.slice(0, -1).map((name) => String(line[name])).join("\t"));
    return line;
  };

  const show = () => {
    const wanted = document.getElementById("show").value;
    const latest = new Map();
    for (const d of decisions) if (d.decision !== known.opened) latest.set([d.participant_id, d.visit, d.endpoint].join("\t"), d);
    let open = 0;
    for (const sheet of all(".sheet")) {
      const own = decisions.filter((d) => d.participant_id === sheet.dataset.subject && d.visit === sheet.dataset.visit);
      const counts = own.filter((d) => latest.get([d.participant_id, d.visit, d.endpoint].join("\t")) === d).map((d) => d.decision);
      const worst = ["exclude", "review", "accept"].find((name) => counts.includes(name)) || "";
      const tag = sheet.querySelector(".decided");
      tag.hidden = !worst;
      tag.textContent = { accept: "accepted", review: "for review", exclude: "excluded" }[worst] || "";
      tag.className = `tag decided ${{ accept: "ok", review: "warning", exclude: "error" }[worst] || ""}`;
      const history = sheet.querySelector(".history");
      history.hidden = !own.length;
      history.replaceChildren(...own.map((d) => {
        const item = document.createElement("li");
        const what = d.endpoint === "all" ? "" : ` (${d.endpoint})`;
        item.textContent = `${d.decision === known.opened ? "values shown" : d.decision}${what}${d.reason ? `: ${d.reason}` : ""}. ${d.decided_by}, ${d.decided_at}`;
        return item;
      }));
      if (!worst) open += 1;
      const kept = { "": true, open: !worst, flagged: Boolean(sheet.dataset.flag), review: counts.includes("review"), exclude: counts.includes("exclude") };
      sheet.hidden = !kept[wanted];
    }
    say(`${decisions.length} decisions${!served && added ? `, ${added} not yet downloaded` : ""}; ${open} visits not yet decided`);
  };

  const send = async (name, body) => {
    const answer = await fetch(name, { method: body ? "POST" : "GET", headers: body ? { "Content-Type": "application/json" } : {}, body: body ? JSON.stringify(body) : undefined });
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.error || answer.statusText);
    return content;
  };

  const record = async (given) => {
    try {
      if (served) decisions = await send("decisions", given);
      else { decisions = [...decisions, chained(given)]; added += 1; }
      return true;
    } catch (error) { say(`Not recorded: ${error.message}`); return false; }
  };

  // The visit before or after, of those that are shown.
  const go = (sheet, step) => {
    const shown = all(".sheet").filter((one) => one === sheet || !one.hidden);
    const next = shown[shown.indexOf(sheet) + step];
    if (next) next.focus();
  };

  for (const sheet of all(".sheet")) {
    const form = sheet.querySelector("form");
    const decide = async () => {
      const chosen = form.querySelector("input[name=decision]:checked");
      const reason = form.querySelector("input[name=reason]");
      if (!reviewer.value.trim()) { say("Give your name first"); reviewer.focus(); return; }
      if (!chosen) { say("Choose accept, review or exclude"); form.querySelector("input").focus(); return; }
      if (chosen.value !== "accept" && !reason.value.trim()) { say(`Give a reason to ${chosen.value}`); reason.focus(); return; }
      const given = {
        participant_id: sheet.dataset.subject, visit: sheet.dataset.visit, endpoint: form.querySelector("select").value,
        decision: chosen.value, reason: reason.value, decided_by: reviewer.value,
      };
      if (await record(given)) { form.reset(); show(); return true; }
    };
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (await decide()) go(sheet, 1);
    });
    form.querySelector("button").addEventListener("click", decide);
    // Letters act while the focus is in a sheet, and not while somebody writes.
    const choices = { a: "accept", r: "review", x: "exclude" };
    const steps = { n: 1, p: -1 };
    sheet.addEventListener("keydown", async (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.target !== sheet && event.target.type !== "radio") return;
      const key = event.key.toLowerCase();
      if (key in choices) {
        const radio = form.querySelector(`input[value=${choices[key]}]`);
        radio.checked = true;
        (key === "a" ? radio : form.querySelector("input[name=reason]")).focus();
      } else if (key in steps) go(sheet, steps[key]);
      else if (key === "enter") { if (await decide()) go(sheet, 1); } else return;
      event.preventDefault();
    });
    // Values are hidden until somebody asks for them, and who asked is recorded first.
    const opener = sheet.querySelector(".open-values");
    if (opener) opener.addEventListener("click", async () => {
      if (!reviewer.value.trim()) { say("Give your name first"); reviewer.focus(); return; }
      const given = {
        participant_id: sheet.dataset.subject, visit: sheet.dataset.visit, endpoint: "all",
        decision: known.opened, reason: "", decided_by: reviewer.value,
      };
      if (!await record(given)) return;
      sheet.querySelector(".values").hidden = false;
      opener.setAttribute("aria-expanded", "true");
      opener.disabled = true;
      show();
    });
  }
  document.getElementById("desk-head").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("show").addEventListener("change", show);
  document.getElementById("download").addEventListener("click", () => {
    const lines = [columns, ...decisions.map((d) => columns.map((name) => String(d[name])))].map((cells) => `${cells.join("\t")}\n`);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(lines, { type: "text/tab-separated-values" }));
    link.download = "qc_decisions.tsv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    added = 0;
    show();
  });
  addEventListener("beforeunload", (event) => { if (!served && added) event.preventDefault(); });
  if (served) {
    const finish = document.getElementById("finish");
    finish.hidden = false;
    finish.addEventListener("click", async () => { await send("finish", {}); say("Finished; the window can be closed"); });
    send("decisions").then((found) => { decisions = found; show(); }).catch((error) => say(error.message));
  }
  show();
  globalThis.DESK_READY = true;
})();
