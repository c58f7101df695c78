"use strict";
(() => {
  const report = JSON.parse(document.getElementById("report-data").textContent);
  for (const figure of Object.values(report.figures)) figure.data = figure.data.map((trace) => ({ ...figure.shared, ...trace }));
  const all = (selector) => [...document.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const CURVES = Object.keys(report.figures).filter((name) => report.figures[name].layout.meta?.axes);
  const MAX_LABELLED_LINES = 16;
  const LABEL_GAP = 14;
  const PRINT_WIDTH = 680; // A4 less its margins, in CSS pixels
  const PRINT_MAP_WIDTH = 210;
  const PRINT_HALF_WIDTH = 330;
  const CONFIG = {
    displaylogo: false,
    // Named one by one: the default bar has a button that leads to another host.
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "autoScale2d", "resetScale2d"]],
    toImageButtonOptions: { filename: report.title.replace(/[^\w.-]+/g, "_"), scale: 2 },
  };
  const state = { axis: "tokens", target: report.target, hidden: new Set(), printing: false };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)");

  // --- drawing -------------------------------------------------------------------------------------------------------

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const shown = (trace) =>
    ["method", "batch", "lr", "seed"].every((field) => !state.hidden.has(`${field}\n${trace.meta[field]}`));

  // Okabe–Ito's blue is too dark for thin lines on dark paper: the same hue, lighter.
  const hue = (color) => (color === "#0072B2" && dark.matches && !state.printing ? "#4aa5de" : color);

  function recolored(part) {
    if (part === null || typeof part !== "object" || Array.isArray(part)) return part;
    return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, key === "color" ? hue(value) : recolored(value)]));
  }

  function inTheme(trace, ink) {
    const next = { ...trace, line: recolored(trace.line), marker: recolored(trace.marker), error_x: recolored(trace.error_x) };
    if (trace.textfont) next.textfont = { ...trace.textfont, color: ink };
    return Object.fromEntries(Object.entries(next).filter(([, value]) => value !== undefined));
  }

  function themed(layout, width) {
    const [ink, paper, rule] = state.printing ? ["#000", "#fff", "#999"] : ["--ink", "--paper", "--soft"].map(css);
    return {
      ...layout,
      width,
      font: { ...layout.font, color: ink },
      hoverlabel: { ...layout.hoverlabel, bgcolor: paper, bordercolor: rule, font: { ...layout.hoverlabel.font, color: ink } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: rule, activecolor: ink },
      // A finger scrolls the page; zooming by box is for a mouse.
      dragmode: coarse.matches ? false : "zoom",
    };
  }

  function widthOf(plot) {
    if (state.printing) return plot.closest(".map, .glance") ? PRINT_MAP_WIDTH : plot.closest(".half") ? PRINT_HALF_WIDTH : PRINT_WIDTH;
    return plot.clientWidth;
  }

  function curveFigure(name, width) {
    const { data, layout } = report.figures[name];
    const axis = layout.meta.axes[state.axis];
    const lines = data.map((trace) => ({
      ...inTheme(trace),
      x: trace.customdata.map((point) => point[axis.column]),
      name: trace.meta.label,
      visible: shown(trace),
    }));
    const visible = lines.filter((trace) => trace.visible);
    const labelled = width >= 620 && visible.length <= MAX_LABELLED_LINES;
    const longest = Math.max(0, ...visible.map((trace) => plain(trace.meta.label).length));
    const right = labelled ? Math.min(30 + 6.3 * longest, 0.4 * width) : 12;
    const next = themed(layout, width);
    next.margin = { ...layout.margin, t: 16, r: right, l: width < 620 ? 44 : 56 };
    const end = 1.01 * Math.max(0, ...lines.map((trace) => trace.x.at(-1) ?? 0)) || 1;
    next.xaxis = { ...layout.xaxis, range: [0, end], maxallowed: end, title: { ...layout.xaxis.title, text: axis.title }, nticks: width < 620 ? 5 : 8 };
    next.uirevision = state.axis;
    if (name === "validation" && state.target) next.shapes = [targetShape()];
    // Other shapes stand at tokens.
    else if (state.axis !== "tokens") next.shapes = [];
    return { lines, layout: next, labelled };
  }

  function targetShape() {
    const line = { color: state.printing ? "#444" : css("--soft"), width: 1.5, dash: "dot" };
    return { type: "line", xref: "paper", x0: 0, x1: 1, y0: state.target, y1: state.target, line };
  }

  function plain(text) {
    const box = document.createElement("textarea"); // a textarea decodes entities and never makes elements
    box.innerHTML = text;
    return box.value;
  }

  // A figure in a closed part has no width; it is drawn when the part opens.
  const undrawn = new Set(Object.keys(report.figures));
  const zoomable = new Set();

  async function draw(name) {
    const plot = byId(name);
    const width = widthOf(plot);
    if (!width) {
      undrawn.add(name);
      return;
    }
    undrawn.delete(name);
    await drawAt(name, plot, width);
    plot.style.minHeight = "";
    if (CURVES.includes(name) && !zoomable.has(name)) {
      zoomable.add(name);
      followZoom(name);
    }
    document.documentElement.dataset.undrawn = undrawn.size;
  }

  async function drawAt(name, plot, width) {
    if (!CURVES.includes(name)) {
      const { data, layout } = report.figures[name];
      const next = themed(layout, width);
      // A narrow plot's legend takes three lines.
      // Some figures say how much room their legend takes there; the plot itself keeps its height.
      if (width < 620 && layout.meta?.narrow_top) {
        next.height += layout.meta.narrow_top - layout.margin.t;
        next.margin = { ...next.margin, t: layout.meta.narrow_top };
      } else if (width < 620 && layout.legend) {
        next.margin = { ...next.margin, t: 110 };
      }
      if (name === "over-targets" && width < 620) next.xaxis = { ...next.xaxis, nticks: 4 };
      // Words beside marks would cover each other there, too; they stand in the hover and the table.
      const bare = (trace) => (width < 620 && !name.startsWith("glance") && trace.mode === "markers+text" ? { ...trace, mode: "markers" } : trace);
      // Lines that the key can hide say what they are of; a mark of no seed of its own stays with any seed.
      const lines = data.map((trace) => ({ ...inTheme(bare(trace), next.font.color), visible: !trace.meta?.method || shown(trace) }));
      await Plotly.react(plot, lines, next, CONFIG);
      return;
    }
    const { lines, layout, labelled } = curveFigure(name, width);
    await Plotly.react(plot, lines, layout, CONFIG);
    await Plotly.relayout(plot, { annotations: labelled ? endLabels(plot, lines) : lostMarks(plot, lines) });
    if (name === "validation") placeGrip();
  }

  const drawAll = () => Promise.all(Object.keys(report.figures).map(draw));
  const drawCurves = () => Promise.all(CURVES.map(draw));

  // Labels sit right of the plot, pushed apart until none overlap, each tied to the end of its line by a thin leader.
  function endLabels(plot, lines) {
    const { xaxis, yaxis, _size: size } = plot._fullLayout;
    const ends = [];
    for (const trace of lines) {
      if (!trace.visible) continue;
      const x = trace.x.at(-1);
      const px = xaxis.d2p(x);
      const py = yaxis.d2p(trace.y.at(-1));
      if (px < 0 || px > size.w + 1) continue;
      ends.push({ trace, x, px, at: Math.min(Math.max(py, 0), size.h) });
    }
    // A run that stopped early is named where it stopped, not across the plot.
    const [early, late] = [ends.filter((end) => end.px < 0.75 * size.w), ends.filter((end) => end.px >= 0.75 * size.w)];
    late.sort((a, b) => a.at - b.at);
    const placed = spread(late.map((end) => end.at), LABEL_GAP, size.h);
    return [
      ...early.map((end) => endLabel(yaxis, end, 12, 0)),
      ...late.map((end, i) => endLabel(yaxis, end, size.w - end.px + 16, placed[i] - end.at)),
    ];
  }

  // Without labels, a diverged run that ends above the view still gets its mark, at the upper edge.
  function lostMarks(plot, lines) {
    const { yaxis } = plot._fullLayout;
    const top = yaxis.range[1];
    return lines
      .filter((trace) => trace.visible && trace.meta.diverged && yaxis.d2p(trace.y.at(-1)) < 0)
      .map((trace) => ({ x: trace.x.at(-1), y: top, text: "×", font: { size: 16, color: trace.line.color }, showarrow: false }));
  }

  function endLabel(yaxis, { trace, x, at }, ax, ay) {
    return {
      x,
      y: yaxis.type === "log" ? Math.log10(yaxis.p2d(at)) : yaxis.p2d(at),
      ax,
      ay,
      text: trace.meta.label,
      font: { size: 11, color: trace.line.color },
      xanchor: "left",
      showarrow: true,
      arrowhead: 0,
      arrowwidth: 0.7,
      arrowcolor: trace.line.color,
      standoff: trace.meta.diverged ? 7 : 2,
    };
  }

  function spread(wanted, gap, height) {
    const placed = [...wanted];
    for (let i = 1; i < placed.length; i++) placed[i] = Math.max(placed[i], placed[i - 1] + gap);
    let limit = height;
    for (let i = placed.length - 1; i >= 0; i--) {
      placed[i] = Math.min(placed[i], limit);
      limit = placed[i] - gap;
    }
    return placed;
  }

  function followZoom(name) {
    byId(name).on("plotly_relayout", (change) => {
      if (!Object.keys(change).some((key) => /^[xy]axis/.test(key))) return;
      const plot = byId(name);
      const { lines, labelled } = curveFigure(name, widthOf(plot));
      Plotly.relayout(plot, { annotations: labelled ? endLabels(plot, lines) : lostMarks(plot, lines) });
      if (name === "validation") placeGrip();
    });
  }

  // --- the target ----------------------------------------------------------------------------------------------------

  const grip = byId("target-grip");
  const field = byId("target");

  const pplText = (ppl) => Number(ppl.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });

  function placeGrip() {
    const full = byId("validation")._fullLayout;
    if (!full?.yaxis || !state.target) {
      grip.hidden = true;
      return;
    }
    const top = full.yaxis.d2p(state.target);
    grip.hidden = top < -1 || top > full._size.h + 1;
    grip.style.top = `${full._size.t + top}px`;
    grip.style.left = `${full._size.l}px`;
    grip.style.width = `${full._size.w}px`;
    grip.firstElementChild.textContent = `target ${pplText(state.target)}`;
    const [low, high] = full.yaxis.range.map((power) => 10 ** power);
    const aria = { valuemin: low.toPrecision(3), valuemax: high.toPrecision(3), valuenow: state.target.toPrecision(4) };
    for (const [key, value] of Object.entries(aria)) grip.setAttribute(`aria-${key}`, value);
    grip.setAttribute("aria-valuetext", `perplexity ${pplText(state.target)}`);
  }

  function setTarget(ppl, { typed = false } = {}) {
    state.target = ppl > 1 && Number.isFinite(ppl) ? ppl : null;
    if (!typed) field.value = state.target ? Number(state.target.toPrecision(4)) : "";
    byId("target-reset").hidden = state.target === report.target || report.target === null;
    Plotly.relayout("validation", { shapes: state.target ? [targetShape()] : [] });
    placeGrip();
    explore();
  }

  function followTarget() {
    grip.addEventListener("pointerdown", (event) => {
      grip.setPointerCapture(event.pointerId);
      event.preventDefault();
      grip.focus();
    });
    grip.addEventListener("pointermove", (event) => {
      if (!grip.hasPointerCapture(event.pointerId)) return;
      const full = byId("validation")._fullLayout;
      const y = event.clientY - byId("validation").getBoundingClientRect().top - full._size.t;
      setTarget(full.yaxis.p2d(Math.min(Math.max(y, 0), full._size.h)));
    });
    grip.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 1.005, ArrowRight: 1.005, ArrowDown: 1 / 1.005, ArrowLeft: 1 / 1.005, PageUp: 1.05, PageDown: 1 / 1.05 }[event.key];
      if (step) setTarget(state.target * step);
      else if (event.key === "Escape" && report.target !== null) setTarget(report.target);
      else return;
      event.preventDefault();
    });
    field.addEventListener("input", () => setTarget(Number.parseFloat(field.value), { typed: true }));
    byId("target-reset").addEventListener("click", () => setTarget(report.target));
  }
  if (grip) followTarget(); // a search's page has no target

  // Where a line first falls to the target: linear in loss (= log ppl) over tokens; time is read at the same fraction.
  function firstReached(trace, target) {
    const loss = trace.y.map(Math.log);
    const goal = Math.log(target);
    const i = loss.findIndex((value) => value <= goal);
    if (i < 0) return null;
    const [, tokens, time] = trace.customdata[i];
    if (i === 0) return { tokens, time };
    const [, tokensBefore, timeBefore] = trace.customdata[i - 1];
    const part = (loss[i - 1] - goal) / (loss[i - 1] - loss[i]);
    return { tokens: tokensBefore + part * (tokens - tokensBefore), time: time === null ? null : timeBefore + part * (time - timeBefore) };
  }

  function explore() {
    const moved = state.target !== null && state.target !== report.target;
    byId("explore").hidden = !moved;
    if (!moved) return;
    const traces = report.figures.validation.data.filter((trace) => trace.meta);
    const found = new Map(traces.map((trace) => [trace.meta.run_id, firstReached(trace, state.target)]));
    const own = report.target === null ? "the report has none of its own" : `the report's own is ${pplText(report.target)}`;
    const reached = [...found.values()].filter(Boolean).length;
    byId("explore-words").textContent =
      `At perplexity ${pplText(state.target)} (${own}): ${reached} of ${traces.length} runs reach it. Computed in this ` +
      "page from the drawn evaluations, linear in loss over tokens; without intervals, and no part of the verdict. " +
      "Saved: against the baseline with the same batch size, learning rate and seed, all else equal, at this target.";
    const rows = traces.filter(shown).map((trace) => {
      const here = found.get(trace.meta.run_id);
      const base = found.get(report.pairs[trace.meta.run_id]);
      return [
        plain(trace.meta.label),
        here ? Math.round(here.tokens).toLocaleString("en") : "not reached",
        here && here.time !== null ? here.time.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 }) : "–",
        here && base ? signed(100 * (1 - here.tokens / base.tokens)) : "–",
      ];
    });
    byId("explore-rows").replaceChildren(...rows.map(tableRow));
  }

  function signed(value) {
    if (!Number.isFinite(value)) return "–";
    return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;
  }

  function tableRow(cells) {
    const row = document.createElement("tr");
    cells.forEach((text, i) => {
      const cell = row.insertCell();
      cell.textContent = text;
      if (i > 0) cell.className = "n";
    });
    return row;
  }

  // --- data ----------------------------------------------------------------------------------------------------------

  const quoted = (value) => (value === null || value === undefined ? "" : `"${String(value).replaceAll('"', '""')}"`);

  function csvRows(name) {
    if (name === "stability") {
      const maps = Object.keys(report.figures).filter((key) => key.startsWith("stability-"));
      const rows = maps.flatMap((key) => mapRows(key));
      return [["curriculum", ...(report.figures[maps[0]]?.layout.meta.columns ?? [])], ...rows];
    }
    const { data, layout } = report.figures[name];
    if (name === "savings") {
      const rows = data.flatMap((t) => t.x.map((x, i) => [plain(t.customdata[i][0]), t.name, x, ...t.customdata[i].slice(2)]));
      return [layout.meta?.columns ?? [], ...rows];
    }
    // A figure may carry the table of what it draws.
    if (layout.meta?.table) return [layout.meta.table.columns, ...layout.meta.table.rows];
    if (layout.meta?.points) {
      return [layout.meta.points, ...data.flatMap((t) => t.x.map((x, i) => [t.meta.run_id, t.customdata[i], x, t.y[i]]))];
    }
    if (!layout.meta?.columns) return [];
    const columns = [...layout.meta.columns];
    columns[2] = `train_${layout.meta.time}`;
    const points = data.flatMap((t) => t.customdata.map((point, i) => [t.meta.run_id, ...point, t.y[i]]));
    // The schedule's value is one of the point's own columns: its last cell would only repeat it.
    return [["run_id", ...columns], ...points.map((row) => row.slice(0, columns.length + 1))];
  }

  function mapRows(key) {
    const { data: [heat] } = report.figures[key];
    const name = byId(key).closest(".map").querySelector("h4").textContent;
    return heat.y.flatMap((batch, i) => heat.x.map((lr, j) => [name, batch, lr, heat.z[i][j], ...heat.customdata[i][j]]));
  }

  function download(name) {
    const text = csvRows(name).map((row) => row.map(quoted).join(",")).join("\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text + "\n"], { type: "text/csv" }));
    link.download = `${report.title.replace(/[^\w.-]+/g, "_")}_${name}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // --- wiring --------------------------------------------------------------------------------------------------------

  for (const button of all("[data-axis]")) {
    button.addEventListener("click", () => {
      state.axis = button.dataset.axis;
      for (const other of all("[data-axis]")) other.setAttribute("aria-pressed", other.dataset.axis === state.axis);
      drawCurves();
    });
  }
  for (const box of all(".key input")) {
    box.addEventListener("change", () => {
      const key = `${box.dataset.field}\n${box.value}`;
      if (box.checked) state.hidden.delete(key);
      else state.hidden.add(key);
      drawAll();
      explore();
    });
  }
  for (const button of all("[data-csv]")) button.addEventListener("click", () => download(button.dataset.csv));

  function print(printing) {
    state.printing = printing;
    for (const details of all("details:not(.data)")) {
      if (printing) details.dataset.wasOpen = details.open;
      details.open = printing || details.dataset.wasOpen === "true";
    }
    drawAll();
  }
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  dark.addEventListener("change", drawAll);

  let width = innerWidth;
  let pending = 0;
  addEventListener("resize", () => {
    // A phone's address bar changes the height alone: nothing to draw again.
    if (innerWidth === width || state.printing) return;
    width = innerWidth;
    clearTimeout(pending);
    pending = setTimeout(drawAll, 120);
  });

  // A page that loads itself again while a sweep runs comes back as it was left.
  const KEPT = `cl_bench ${report.title}`;
  function comeBack() {
    const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
    if (!kept) return;
    if (kept.axis !== state.axis) document.querySelector(`[data-axis="${kept.axis}"]`)?.click();
    for (const box of all(".key input")) if (kept.hidden.includes(`${box.dataset.field}\n${box.value}`) && box.checked) box.click();
    all("details").forEach((details, i) => (details.open = kept.open.includes(i)));
    if (kept.moved) setTarget(kept.target);
    scrollTo(0, kept.scroll);
  }
  function leave() {
    const open = all("details").flatMap((details, i) => (details.open ? [i] : []));
    const moved = state.target !== report.target;
    const kept = { axis: state.axis, hidden: [...state.hidden], open, moved, target: state.target, scroll: scrollY };
    sessionStorage.setItem(KEPT, JSON.stringify(kept));
  }

  // A link to a part, or to anything in it, opens it.
  function openTarget() {
    let id = location.hash.slice(1);
    try {
      id = decodeURIComponent(id);
    } catch {
      return;
    }
    const place = id && byId(id);
    if (!place) return;
    for (let part = place.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
    place.scrollIntoView();
  }
  addEventListener("hashchange", openTarget);
  for (const details of all("details")) {
    details.addEventListener("toggle", () => {
      if (!details.open || state.printing) return;
      for (const plot of details.querySelectorAll(".plot")) if (undrawn.has(plot.id)) draw(plot.id);
    });
  }

  // The first figure at once, the others one at a turn: the page can be read and scrolled meanwhile, and keeps its shape.
  const turn = () => new Promise((done) => setTimeout(done));
  async function drawInTurn() {
    const names = Object.keys(report.figures);
    for (const name of names) byId(name).style.minHeight = `${report.figures[name].layout.height}px`;
    const places = all(".plot").map((plot) => plot.id);
    names.sort((a, b) => places.indexOf(a) - places.indexOf(b));
    for (const name of names) {
      await draw(name);
      document.documentElement.dataset.shown = "true";
      await turn();
    }
  }

  openTarget();
  drawInTurn().then(() => {
    if (report.watched) {
      comeBack();
      addEventListener("pagehide", leave);
    }
    document.documentElement.dataset.ready = "true";
  });
})();
