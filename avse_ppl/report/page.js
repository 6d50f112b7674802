"use strict";
// Charts of a report: zoom, values under the cursor, and the place of the sound that plays.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const colours = JSON.parse(document.getElementById("colours").textContent)
    .map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const DASHES = [[], [6, 4], [8, 3, 2, 3], [2, 3], [9, 2, 2, 2, 2, 2], [10, 4], [4, 2, 1, 2], [1, 2]];
  const LEFT = 58, BOTTOM = 34, TOP = 8, RIGHT = 12, GAP = 18;
  const charts = [];
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const paints = new Map();  // of the theme that is on
  function colour(name) {
    if (!paints.has(name)) paints.set(name, getComputedStyle(root).getPropertyValue(`--${name}`).trim());
    return paints.get(name);
  }

  // --- data ---------------------------------------------------------------------------------------

  function unpack(curve) {
    const bytes = Uint8Array.from(atob(curve.data), (letter) => letter.charCodeAt(0));
    const whole = new DataView(bytes.buffer);
    const count = bytes.length / 2 / curve.rows;
    return Array.from({ length: curve.rows }, (_, row) => Float64Array.from({ length: count },
      (_, i) => {
        const value = whole.getInt16(2 * (row * count + i), true);
        return value === -32768 ? NaN : curve.scale * value + curve.offset;
      }));
  }

  function readImage(image) {
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    const levels = new Uint8Array(canvas.width * canvas.height);
    for (let i = 0; i < levels.length; i += 1) {
      levels[i] = pixels.data[4 * i];
      const [red, green, blue] = colours[levels[i]];
      pixels.data[4 * i] = red;
      pixels.data[4 * i + 1] = green;
      pixels.data[4 * i + 2] = blue;
    }
    context.putImageData(pixels, 0, 0);
    return { canvas, levels };
  }

  // --- numbers ------------------------------------------------------------------------------------

  function listTicks(low, high, most) {
    const rough = (high - low) / most;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((s) => s * power).find((s) => s >= rough * 0.999);
    const ticks = [];
    for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + 1e-9 * step; tick += step) {
      ticks.push(Math.abs(tick) < step * 1e-9 ? 0 : tick);
    }
    return { ticks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
  }

  function formatNumber(value, unit) {
    if (!Number.isFinite(value)) return "none";
    const size = Math.abs(value);
    const digits = unit === "s" ? 3 : unit === "Hz" || size >= 100 ? 0 : size >= 1 || unit === "dB" ? 1 : 3;
    return `${value.toFixed(digits).replace("-", "\u2212")}${unit ? `\u00a0${unit}` : ""}`;
  }

  // --- charts -------------------------------------------------------------------------------------

  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const chart = charts.find(({ plot }) => plot === entry.target);
      chart.near = entry.isIntersecting;
      if (chart.near && chart.stale) chart.draw();
    }
  }, { rootMargin: "800px" });

  class Chart {
    constructor(figure, data, section) {
      Object.assign(this, { figure, data, section, cursor: null, drag: null });
      this.plot = figure.querySelector(".plot");
      this.readout = figure.querySelector(".readout");
      this.base = document.createElement("canvas");
      this.over = document.createElement("canvas");
      this.over.className = "cursor";
      this.over.tabIndex = 0;
      this.over.setAttribute("role", "img");
      this.over.setAttribute("aria-label", `${data.title}. ${data.text} Arrow keys move the cursor, plus and minus zoom.`);
      this.plot.append(this.base, this.over);
      this.x = { ...data.x };
      this.y = { ...data.y };
      if (data.curves) {
        this.curves = data.curves.map((curve) => ({ ...curve, values: unpack(curve) }));
        this.addLegend();
      } else {
        this.images = [...figure.querySelectorAll("img")].map(readImage);
      }
      this.listen();
      this.near = false;
      watcher.observe(this.plot);
    }

    addLegend() {
      const list = document.createElement("ul");
      list.className = "legend";
      this.curves.forEach((curve) => {
        const item = document.createElement("li");
        const { stroke, dash, filled } = this.style(curve, true);
        const box = filled ? `<rect x="1" y="1" width="33" height="11" fill="${stroke}"/>`
          : `<line x1="0" y1="6.5" x2="35" y2="6.5" stroke="${stroke}" stroke-width="2.5" stroke-dasharray="${dash.join(" ")}"/>`;
        item.innerHTML = `<svg viewBox="0 0 35 13" aria-hidden="true">${box}</svg>`;
        item.append(curve.name);
        list.append(item);
      });
      this.plot.after(list);
    }

    style(curve, named) {
      const pick = (name) => (named ? `var(--${name})` : colour(name));
      const styles = {
        faint: [pick("faint"), []], band: [pick("band"), []], dark: [pick("dark-line"), []],
        dashed: [pick("noisy"), [5, 4]],
      };
      const number = Number(curve.style.slice(4));
      const [stroke, dash] = styles[curve.style] ?? [pick(`c${number}`), DASHES[number]];
      return { stroke, dash, filled: curve.rows === 2 };
    }

    // Where the panels lie, in CSS pixels.
    place() {
      const width = this.plot.clientWidth;
      if (!this.images) {
        const height = this.data.id === "gate" ? 150 : 230;
        return { height, panels: [{ left: LEFT, top: TOP, width: width - LEFT - RIGHT, height: height - TOP - BOTTOM }] };
      }
      const columns = width > 700 ? this.images.length : 1;
      const rows = Math.ceil(this.images.length / columns);
      const bar = 54;
      const cell = (width - LEFT - bar - GAP * (columns - 1)) / columns;
      const tall = columns > 1 ? 270 : 170, head = 22;
      const panels = this.images.map((_, i) => ({
        left: LEFT + (i % columns) * (cell + GAP),
        top: head + Math.floor(i / columns) * (tall + head + 14),
        width: cell, height: tall,
      }));
      return { height: rows * (tall + head + 14) + BOTTOM - 8, panels, bar: { left: width - bar + 8, ...panels[0] && { top: head, height: tall } } };
    }

    // Draw what is near the window now, and the rest once it is.
    refresh() {
      if (this.near) this.draw();
      else {
        this.stale = true;
        this.plot.style.height = `${this.place().height}px`;
      }
    }

    draw() {
      this.stale = false;
      const { height, panels, bar } = this.place();
      this.plot.style.height = `${height}px`;
      const width = this.plot.clientWidth, ratio = window.devicePixelRatio || 1;
      for (const canvas of [this.base, this.over]) {
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(height * ratio);
      }
      this.panels = panels;
      const context = this.base.getContext("2d");
      context.scale(ratio, ratio);
      context.font = "12px system-ui, sans-serif";
      panels.forEach((panel, i) => {
        context.save();
        context.beginPath();
        context.rect(panel.left, panel.top, panel.width, panel.height);
        context.clip();
        if (this.images) this.drawImage(context, panel, this.images[i]);
        else this.drawCurves(context, panel);
        context.restore();
        const leftmost = panel.left === LEFT;
        const lowest = !panels.some((p) => p.left === panel.left && p.top > panel.top);
        this.drawAxes(context, panel, leftmost, lowest);
        if (this.images) {
          context.fillStyle = colour("ink");
          context.textAlign = "left";
          context.fillText(this.fitText(context, this.data.images[i], panel.width), panel.left, panel.top - 8);
        }
      });
      if (bar) this.drawBar(context, bar);
      this.drawCursor();
    }

    fitText(context, text, width) {
      let shown = text;
      while (shown.length > 4 && context.measureText(shown).width > width) shown = `${shown.slice(0, -2)}…`;
      return shown;
    }

    drawImage(context, panel, { canvas }) {
      const { x, y } = this.data;
      const sx = (value) => ((value - x.low) / (x.high - x.low)) * canvas.width;
      const sy = (value) => ((y.high - value) / (y.high - y.low)) * canvas.height;
      const wide = sx(this.x.high) - sx(this.x.low), tall = sy(this.y.low) - sy(this.y.high);
      context.imageSmoothingEnabled = wide > panel.width / 3;
      context.imageSmoothingQuality = "high";
      context.drawImage(canvas, sx(this.x.low), sy(this.y.high), wide, tall, panel.left, panel.top, panel.width, panel.height);
    }

    // Place of the k-th of so many points on the axis.
    spread(count) {
      const [from, to] = this.data.points ?? [this.data.x.low, this.data.x.high];
      return { from, step: count > 1 ? (to - from) / (count - 1) : 1 };
    }

    drawCurves(context, panel) {
      const px = (value) => panel.left + ((value - this.x.low) / (this.x.high - this.x.low)) * panel.width;
      const py = (value) => panel.top + ((this.y.high - value) / (this.y.high - this.y.low)) * panel.height;
      for (const curve of this.curves) {
        const { stroke, dash, filled } = this.style(curve, false);
        const rows = curve.values, { from, step } = this.spread(rows[0].length);
        const first = clamp(Math.floor((this.x.low - from) / step), 0, rows[0].length - 1);
        const last = clamp(Math.ceil((this.x.high - from) / step), 0, rows[0].length - 1);
        const many = Math.max(1, Math.floor((last - first) / (2 * panel.width)));
        // Least and largest of the points that share a pixel.
        const low = [], high = [], at = [];
        for (let i = first; i <= last; i += many) {
          let least = Infinity, most = -Infinity;
          for (let j = i; j < Math.min(i + many, last + 1); j += 1) {
            if (rows[0][j] < least) least = rows[0][j];
            if (rows[rows.length - 1][j] > most) most = rows[rows.length - 1][j];
          }
          at.push(px(from + step * (i + (Math.min(i + many, last + 1) - i - 1) / 2)));
          low.push(Number.isFinite(least) ? py(least) : NaN);
          high.push(Number.isFinite(most) ? py(most) : NaN);
        }
        context.beginPath();
        if (filled) {
          at.forEach((place, k) => context.lineTo(place, high[k]));
          for (let k = at.length - 1; k >= 0; k -= 1) context.lineTo(at[k], low[k]);
          context.closePath();
          context.fillStyle = context.strokeStyle = stroke;
          context.fill();
          context.lineWidth = curve.style === "band" ? 0.5 : 1;
          context.setLineDash([]);
          context.stroke();
        } else {
          let gap = true;
          at.forEach((place, k) => {
            if (Number.isNaN(high[k])) { gap = true; return; }
            if (gap) context.moveTo(place, high[k]); else context.lineTo(place, high[k]);
            if (many > 1) context.lineTo(place, low[k]);
            gap = false;
          });
          context.strokeStyle = stroke;
          context.lineWidth = 1.6;
          context.setLineDash(dash);
          context.stroke();
          context.setLineDash([]);
        }
      }
    }

    drawAxes(context, panel, leftmost, lowest) {
      context.strokeStyle = colour("rule");
      context.lineWidth = 1;
      context.strokeRect(panel.left + 0.5, panel.top + 0.5, panel.width - 1, panel.height - 1);
      context.fillStyle = colour("muted");
      const across = listTicks(this.x.low, this.x.high, Math.max(3, panel.width / 70));
      context.textAlign = "center";
      if (lowest) {
        for (const tick of across.ticks) {
          const place = panel.left + ((tick - this.x.low) / (this.x.high - this.x.low)) * panel.width;
          context.fillRect(place, panel.top + panel.height, 1, 4);
          context.fillText(tick.toFixed(across.digits).replace("-", "\u2212"), clamp(place, panel.left + 6, panel.left + panel.width - 8), panel.top + panel.height + 16);
        }
        const { label, unit } = this.data.x;
        context.fillText(label + (unit ? `, ${unit}` : ""), panel.left + panel.width / 2, panel.top + panel.height + 31);
      }
      if (!leftmost) return;
      const up = listTicks(this.y.low, this.y.high, Math.max(3, panel.height / 40));
      context.textAlign = "right";
      for (const tick of up.ticks) {
        const place = panel.top + ((this.y.high - tick) / (this.y.high - this.y.low)) * panel.height;
        context.fillRect(panel.left - 4, place, 4, 1);
        context.fillText(shorten(tick, up.digits), panel.left - 7, clamp(place + 4, panel.top + 9, panel.top + panel.height));
      }
      const { label, unit } = this.data.y;
      context.save();
      context.translate(11, panel.top + panel.height / 2);
      context.rotate(-Math.PI / 2);
      context.textAlign = "center";
      context.fillText([label, unit].filter(Boolean).join(", "), 0, 0);
      context.restore();
    }

    drawBar(context, bar) {
      for (let i = 0; i < 256; i += 1) {
        context.fillStyle = `rgb(${colours[i].join(",")})`;
        context.fillRect(bar.left, bar.top + bar.height * (1 - (i + 1) / 256), 12, bar.height / 256 + 1);
      }
      context.fillStyle = colour("muted");
      context.textAlign = "left";
      const { low, high } = this.data;
      for (let k = 0; k <= 3; k += 1) {
        const value = low + ((high - low) * k) / 3;
        context.fillText(value.toFixed(0).replace("-", "\u2212"), bar.left + 15, clamp(bar.top + bar.height * (1 - k / 3) + 4, bar.top + 10, bar.top + bar.height));
      }
      context.fillText(this.data.unit, bar.left, bar.top - 8);
    }

    drawCursor() {
      const context = this.over.getContext("2d"), ratio = window.devicePixelRatio || 1;
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, this.over.width, this.over.height);
      const at = (panel, value) => panel.left + ((value - this.x.low) / (this.x.high - this.x.low)) * panel.width;
      for (const panel of this.panels ?? []) {
        const line = (value, name, dash) => {
          if (value < this.x.low || value > this.x.high) return;
          context.strokeStyle = this.images ? "#ffffff" : colour(name);
          context.setLineDash(dash);
          context.beginPath();
          context.moveTo(at(panel, value), panel.top);
          context.lineTo(at(panel, value), panel.top + panel.height);
          context.stroke();
        };
        context.lineWidth = 1.5;
        if (this.data.axis === "time" && this.section.playing !== null) line(this.section.playing, "play", []);
        if (this.cursor) line(this.cursor.x, "cursor", [3, 3]);
        if (this.cursor && this.images) {
          const place = panel.top + ((this.y.high - this.cursor.y) / (this.y.high - this.y.low)) * panel.height;
          context.beginPath();
          context.moveTo(panel.left, place);
          context.lineTo(panel.left + panel.width, place);
          context.stroke();
        }
        if (this.drag?.moved) {
          context.fillStyle = "rgba(120, 170, 230, .35)";
          const left = at(panel, Math.min(this.drag.x, this.drag.to.x)), right = at(panel, Math.max(this.drag.x, this.drag.to.x));
          context.fillRect(left, panel.top, right - left, panel.height);
        }
      }
    }

    showValues() {
      if (!this.cursor) { this.readout.textContent = ""; return; }
      const { x, y } = this.cursor;
      const parts = [`${this.data.x.label} ${formatNumber(x, this.data.x.unit)}`];
      if (this.images) {
        const full = this.data;
        parts[0] += `, ${formatNumber(y, "Hz")}`;
        this.images.forEach(({ canvas, levels }, i) => {
          const column = clamp(Math.floor(((x - full.x.low) / (full.x.high - full.x.low)) * canvas.width), 0, canvas.width - 1);
          const row = clamp(Math.floor(((full.y.high - y) / (full.y.high - full.y.low)) * canvas.height), 0, canvas.height - 1);
          const level = levels[row * canvas.width + column];
          const value = full.low + ((full.high - full.low) * level) / 255;
          parts.push(`${full.images[i]} ${level === 0 ? "under " : ""}${formatNumber(value, full.unit)}`);
        });
      } else {
        for (const curve of this.curves) {
          const { from, step } = this.spread(curve.values[0].length);
          const k = clamp(Math.round((x - from) / step), 0, curve.values[0].length - 1);
          const values = curve.values.map((row) => formatNumber(row[k], this.data.y.unit));
          parts.push(`${curve.name} ${values.join(" to ")}`);
        }
      }
      this.readout.textContent = parts.join(" · ");
    }

    // --- zoom, by all who share the axis ---

    peers() {
      return this.section.charts.filter((chart) => chart.data.axis === this.data.axis);
    }

    setView(low, high) {
      const full = this.data.x, least = (full.high - full.low) / 2000;
      const width = clamp(high - low, least, full.high - full.low);
      const start = clamp(low, full.low, full.high - width);
      for (const chart of this.peers()) {
        chart.x = { ...chart.x, low: start, high: start + width };
        chart.refresh();
      }
    }

    zoom(what) {
      const { low, high } = this.x, width = high - low;
      const middle = this.cursor && this.cursor.x >= low && this.cursor.x <= high ? this.cursor.x : (low + high) / 2;
      if (what === "all") {
        this.y = { ...this.data.y };
        this.setView(this.data.x.low, this.data.x.high);
      } else if (what === "in") this.setView(middle - (middle - low) / 2, middle + (high - middle) / 2);
      else if (what === "out") this.setView(middle - 2 * (middle - low), middle + 2 * (high - middle));
      else this.setView(low + (what === "left" ? -0.4 : 0.4) * width, high + (what === "left" ? -0.4 : 0.4) * width);
    }

    moveCursor(x, y) {
      for (const chart of this.peers()) {
        chart.cursor = x === null ? null : { x, y: y ?? chart.cursor?.y ?? (chart.y.low + chart.y.high) / 2 };
        chart.drawCursor();
        if (chart === this || x === null) chart.showValues(); else chart.readout.textContent = "";
      }
    }

    locate(event) {
      if (this.stale) this.draw();
      const box = this.over.getBoundingClientRect();
      const left = event.clientX - box.left, top = event.clientY - box.top;
      const distance = (p) => Math.hypot(Math.max(p.left - left, 0, left - p.left - p.width), Math.max(p.top - top, 0, top - p.top - p.height));
      const panel = this.panels.reduce((best, p) => (distance(p) < distance(best) ? p : best));
      return {
        x: this.x.low + clamp((left - panel.left) / panel.width, 0, 1) * (this.x.high - this.x.low),
        y: this.y.high - clamp((top - panel.top) / panel.height, 0, 1) * (this.y.high - this.y.low),
        left, top, panel,
      };
    }

    listen() {
      const { over } = this;
      over.addEventListener("pointerdown", (event) => {
        if (event.button) return;
        const here = this.locate(event);
        this.drag = { ...here, to: here, moved: false };
        over.setPointerCapture(event.pointerId);
      });
      over.addEventListener("pointermove", (event) => {
        const here = this.locate(event);
        if (this.drag) {
          this.drag.to = here;
          this.drag.moved ||= Math.abs(here.left - this.drag.left) > 5;
        }
        this.moveCursor(here.x, here.y);
      });
      const end = (event, cancelled) => {
        const drag = this.drag;
        this.drag = null;
        if (!drag || cancelled) { this.drawCursor(); return; }
        if (!drag.moved) { this.seek(drag.x); return; }
        const up = Math.abs(drag.to.top - drag.top);
        if (this.images && drag.to.panel === drag.panel && up > 0.15 * drag.panel.height) {
          const low = Math.min(drag.y, drag.to.y), high = Math.max(drag.y, drag.to.y);
          this.y = { ...this.y, low, high };
        }
        this.setView(Math.min(drag.x, drag.to.x), Math.max(drag.x, drag.to.x));
      };
      over.addEventListener("pointerup", (event) => end(event, false));
      over.addEventListener("pointercancel", (event) => end(event, true));
      over.addEventListener("pointerleave", () => { if (!this.drag && document.activeElement !== over) this.moveCursor(null); });
      over.addEventListener("blur", () => this.moveCursor(null));
      over.addEventListener("dblclick", () => this.zoom("all"));
      over.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const here = this.cursor ?? { x: (this.x.low + this.x.high) / 2, y: (this.y.low + this.y.high) / 2 };
        const dx = (this.x.high - this.x.low) / 100, dy = (this.y.high - this.y.low) / 50;
        const moves = { ArrowLeft: [-dx, 0], ArrowRight: [dx, 0], ...(this.images && { ArrowUp: [0, dy], ArrowDown: [0, -dy] }) };
        const zooms = { "+": "in", "=": "in", "-": "out", 0: "all", Escape: "all" };
        if (moves[event.key]) {
          const x = clamp(here.x + moves[event.key][0], this.data.x.low, this.data.x.high);
          if (x < this.x.low || x > this.x.high) this.zoom(x < this.x.low ? "left" : "right");
          this.moveCursor(x, clamp(here.y + moves[event.key][1], this.y.low, this.y.high));
        } else if (zooms[event.key]) this.zoom(zooms[event.key]);
        else if (event.key === "Enter") this.seek(here.x, true);
        else return;
        event.preventDefault();
      });
      for (const button of this.figure.querySelectorAll("[data-zoom]")) {
        button.addEventListener("click", () => this.zoom(button.dataset.zoom));
      }
    }

    seek(time, start) {
      if (this.data.axis !== "time") return;
      const player = this.section.last ?? this.section.players[1];
      player.currentTime = time;
      this.section.showPlace(player);
      if (start) player.play().catch(() => {});
    }
  }

  function shorten(value, digits) {
    const size = Math.abs(value);
    const text = size >= 1e7 ? value.toExponential(0) : size >= 1e5 ? `${(value / 1000).toFixed(0)}k` : value.toFixed(digits);
    return text.replace("-", "\u2212");
  }

  // --- players ------------------------------------------------------------------------------------

  class Section {
    constructor(element) {
      this.players = [...element.querySelectorAll("audio")];
      this.together = element.querySelector(".together");
      this.charts = [];
      this.playing = null;
      this.last = null;
      for (const player of this.players) {
        player.addEventListener("play", () => this.start(player));
        player.addEventListener("seeking", () => { if (player === this.last) this.showPlace(player); });
      }
    }

    start(player) {
      for (const other of document.querySelectorAll("audio")) if (other !== player) other.pause();
      if (this.last && this.last !== player && this.together.checked && !this.last.ended) {
        player.currentTime = this.last.currentTime;
      }
      this.last = player;
      const follow = () => {
        this.showPlace(player);
        if (!player.paused && this.last === player) requestAnimationFrame(follow);
      };
      follow();
    }

    showPlace(player) {
      this.playing = player.currentTime;
      this.charts.filter((chart) => chart.data.axis === "time").forEach((chart) => chart.drawCursor());
    }
  }

  // --- theme --------------------------------------------------------------------------------------

  const toggle = document.getElementById("theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("avse-ppl-theme"); } catch { /* not for files, in some browsers */ }

  function setTheme(name) {
    root.dataset.theme = name;
    paints.clear();
    toggle.setAttribute("aria-pressed", String(name === "dark"));
    charts.forEach((chart) => chart.refresh());
  }

  const themeNow = () => chosen ?? (dark.matches ? "dark" : "light");
  toggle.addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("avse-ppl-theme", chosen); } catch { /* as above */ }
    setTheme(chosen);
  });
  dark.addEventListener("change", () => setTheme(themeNow()));
  window.addEventListener("beforeprint", () => {
    setTheme("light");
    charts.forEach((chart) => chart.draw());
  });
  window.addEventListener("afterprint", () => setTheme(themeNow()));
  setTheme(themeNow());

  // --- start --------------------------------------------------------------------------------------

  async function start() {
    await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
    for (const element of document.querySelectorAll(".recording")) {
      const section = new Section(element);
      for (const figure of element.querySelectorAll(".chart")) {
        const data = JSON.parse(figure.querySelector("script").textContent);
        section.charts.push(new Chart(figure, data, section));
      }
      charts.push(...section.charts);
    }
    charts.forEach((chart) => chart.refresh());
    let width = window.innerWidth;
    new ResizeObserver(() => {
      if (window.innerWidth === width) return;
      width = window.innerWidth;
      charts.forEach((chart) => chart.refresh());
    }).observe(document.body);
    root.dataset.ready = "true";
  }

  start();
})();
