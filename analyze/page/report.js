// What a script can add to a page that is complete without it: pointing, choosing, sorting.
// Everything it knows is in the page's own data block; text goes in as text, never as markup.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);

  // -- unpacking: base64 of little-endian uint16 ------------------------------------------------
  const unpack = (packed) => {
    const raw = atob(packed), out = new Uint16Array(raw.length / 2);
    for (let i = 0; i < out.length; i++) out[i] = raw.charCodeAt(2 * i) | (raw.charCodeAt(2 * i + 1) << 8);
    return out;
  };
  const runs = data.runs.map((run) => {
    const sets = {};
    for (const [name, set] of Object.entries(run.sets)) {
      sets[name] = { kind: set.kind, utterance: unpack(set.utterance), time: unpack(set.time), token: unpack(set.token) };
    }
    return { ...run, sets };
  });

  // -- state: what is chosen --------------------------------------------------------------------
  const chosen = { utterance: null, speaker: "", word: "" };
  const active = () => chosen.utterance !== null || chosen.speaker !== "" || chosen.word !== "";
  const clean = (text) => text.trim().toLowerCase();
  const matches = (run, set, i) => {
    const said = run.utterances[set.utterance[i]];
    if (chosen.utterance !== null && said.id !== chosen.utterance) return false;
    if (chosen.speaker && said.speaker !== chosen.speaker) return false;
    return !chosen.word || clean(run.tokens[set.token[i]]) === chosen.word;
  };

  // -- plots: a canvas over each picture --------------------------------------------------------
  const plots = [...document.querySelectorAll(".plot[data-run]")].map((element) => {
    const run = runs[Number(element.dataset.run)];
    const svg = element.querySelector("svg");
    const box = svg.viewBox.baseVal;
    const panels = (run.panels[element.dataset.key] || []).map((panel) => ({
      set: run.sets[panel.points], colour: panel.colour, xy: unpack(panel.xy),
    }));
    if (!panels.length) return null;
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-hidden", "true");
    element.append(canvas);
    const plot = { element, run, panels, canvas, box };
    canvas.addEventListener("pointermove", (event) => point(plot, event));
    canvas.addEventListener("pointerleave", () => { hideTip(); draw(plot); });
    canvas.addEventListener("click", (event) => {
      const hit = nearest(plot, event);
      choose(hit ? plot.run.utterances[hit.panel.set.utterance[hit.i]].id : null);
    });
    return plot;
  }).filter(Boolean);

  const mark = (context, kind, x, y, r) => {
    context.beginPath();
    if (kind === "text") { context.moveTo(x, y - r); context.lineTo(x + r, y + r * 0.8); context.lineTo(x - r, y + r * 0.8); context.closePath(); }
    else context.arc(x, y, r, 0, 2 * Math.PI);
    context.fill();
  };
  const draw = (plot, under) => {
    const { canvas, element, box, run } = plot;
    const width = element.clientWidth, height = element.clientHeight, sharp = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * sharp);
    canvas.height = Math.round(height * sharp);
    const context = canvas.getContext("2d");
    context.scale(sharp, sharp);
    element.classList.toggle("dim", active());
    const scale = width / box.width / 10;
    if (active()) {
      for (const panel of plot.panels) {
        context.fillStyle = panel.colour;
        for (let i = 0; i < panel.set.utterance.length; i++) {
          if (matches(run, panel.set, i)) mark(context, panel.set.kind, panel.xy[2 * i] * scale, panel.xy[2 * i + 1] * scale, 3);
        }
      }
    }
    if (under) {
      context.fillStyle = under.panel.colour;
      context.strokeStyle = getComputedStyle(root).getPropertyValue("--ink");
      context.lineWidth = 1.5;
      mark(context, under.panel.set.kind, under.panel.xy[2 * under.i] * scale, under.panel.xy[2 * under.i + 1] * scale, 5);
      context.stroke();
    }
  };
  const nearest = (plot, event) => {
    const bounds = plot.canvas.getBoundingClientRect();
    const scale = bounds.width / plot.box.width / 10;
    const x = (event.clientX - bounds.left) / scale, y = (event.clientY - bounds.top) / scale;
    let best = null, least = (12 / scale) ** 2;
    for (const panel of plot.panels) {
      for (let i = 0; i < panel.set.utterance.length; i++) {
        const dx = panel.xy[2 * i] - x, dy = panel.xy[2 * i + 1] - y, far = dx * dx + dy * dy;
        if (far < least && (!active() || matches(plot.run, panel.set, i))) { least = far; best = { panel, i }; }
      }
    }
    return best;
  };

  // -- tooltip ------------------------------------------------------------------------------------
  const tip = byId("tip");
  const hideTip = () => { tip.hidden = true; };
  const point = (plot, event) => {
    const hit = nearest(plot, event);
    draw(plot, hit);
    if (!hit) return hideTip();
    const { set } = hit.panel, said = plot.run.utterances[set.utterance[hit.i]];
    const token = plot.run.tokens[set.token[hit.i]];
    const what = set.kind === "text"
      ? `text token “${token}”, number ${set.time[hit.i] + 1}`
      : `${(set.time[hit.i] / 100).toFixed(2)} s, reads as “${token}”`;
    tip.textContent = `${what}\n${said.id} · speaker ${said.speaker}\n${said.text}`;
    tip.hidden = false;
    const width = tip.offsetWidth, height = tip.offsetHeight;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, window.innerWidth - width - 8))}px`;
    tip.style.top = `${event.clientY + 18 + height > window.innerHeight ? event.clientY - height - 12 : event.clientY + 18}px`;
  };

  // -- choosing -----------------------------------------------------------------------------------
  const status = byId("shown");
  const show = () => {
    plots.forEach((plot) => draw(plot));
    for (const row of document.querySelectorAll("tr[data-utterance]")) {
      const mine = row.dataset.utterance === chosen.utterance;
      row.classList.toggle("chosen", mine);
      row.hidden = Boolean(chosen.speaker && row.dataset.speaker !== chosen.speaker)
        || Boolean(chosen.word && !clean(row.dataset.words).split(/\s+/).includes(chosen.word));
      const button = row.querySelector("button.pick");
      if (button) button.setAttribute("aria-pressed", String(mine));
    }
    const parts = [];
    if (chosen.utterance !== null) parts.push(`utterance ${chosen.utterance}`);
    if (chosen.speaker) parts.push(`speaker ${chosen.speaker}`);
    if (chosen.word) parts.push(`word “${chosen.word}”`);
    let count = 0;
    if (active() && plots.length) {
      for (const panel of plots[0].panels) for (let i = 0; i < panel.set.utterance.length; i++) if (matches(plots[0].run, panel.set, i)) count++;
    }
    status.textContent = parts.length ? `${parts.join(", ")}: ${count} points in the first picture` : "all points";
  };
  const choose = (id) => { chosen.utterance = id === chosen.utterance ? null : id; show(); };
  const speaker = byId("speaker"), word = byId("word");
  speaker.addEventListener("change", () => { chosen.speaker = speaker.value; show(); });
  word.addEventListener("input", () => { chosen.word = clean(word.value); show(); });
  const reset = () => { speaker.value = ""; word.value = ""; Object.assign(chosen, { utterance: null, speaker: "", word: "" }); show(); };
  byId("reset").addEventListener("click", reset);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") reset(); });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.pick");
    if (button) choose(button.closest("tr").dataset.utterance);
  });

  // -- theme --------------------------------------------------------------------------------------
  byId("theme").addEventListener("click", () => {
    const system = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
    plots.forEach((plot) => draw(plot));
  });

  // -- sortable tables ----------------------------------------------------------------------------
  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("thead th[data-sort]").forEach((head) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const rising = head.getAttribute("aria-sort") !== "ascending";
        table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", rising ? "ascending" : "descending");
        const column = head.cellIndex, body = table.tBodies[0];
        const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
        const rows = [...body.rows].sort((a, b) => {
          const x = key(a), y = key(b), p = Number(x), q = Number(y);
          if (x !== "" && y !== "" && !Number.isNaN(p) && !Number.isNaN(q)) return p - q;
          return x.localeCompare(y);
        });
        if (!rising) rows.reverse();
        body.append(...rows);
      });
    });
  }

  let pending = 0;
  window.addEventListener("resize", () => {
    cancelAnimationFrame(pending);
    pending = requestAnimationFrame(() => plots.forEach((plot) => draw(plot)));
  });
  show();
})();
