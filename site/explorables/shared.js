// What the three explorables share: numbers from the page's data, pictures on a canvas, line charts, and speech.
// Plain JavaScript, no library. Every explorable is one <section class="xai"> whose strings stand in a JSON block.
"use strict";

window.XAI = window.XAI || {};

(() => {
  /** Bytes of a base64 string. */
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  /** IEEE half precision (little endian, base64) -> Float32Array, exactly. */
  function halves(text) {
    const raw = new Uint16Array(bytes(text).buffer);
    const out = new Float32Array(raw.length);
    for (let i = 0; i < raw.length; i += 1) {
      const exponent = (raw[i] >> 10) & 31;
      const part = raw[i] & 1023;
      const size = exponent ? (1 + part / 1024) * 2 ** (exponent - 15) : part * 2 ** -24;
      out[i] = raw[i] & 32768 ? -size : size;
    }
    return out;
  }

  /** The strings and the base address of a section: its JSON block. */
  const strings = (section) => JSON.parse(section.querySelector("script.xai-strings").textContent);

  /** "{name}" in a text replaced by values[name]. */
  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));

  /** A number with its sign and a true minus, two digits unless said otherwise. */
  function signed(value, digits = 2) {
    const text = Math.abs(value).toFixed(digits);
    return Number(text) === 0 ? text : `${value < 0 ? "−" : "+"}${text}`;
  }

  /** Write the colour at share 0 … 1 of one of the house's colour maps (the data step wrote them) into pixel i. */
  function colour(pixels, i, name, share) {
    const map = window.XAI_PALETTE[name];
    const place = 3 * Math.round(Math.min(1, Math.max(0, share)) * (map.length / 3 - 1));
    for (let c = 0; c < 3; c += 1) pixels[4 * i + c] = map[place + c];
    pixels[4 * i + 3] = 255;
  }

  /**
   * Paint values (h × w, row by row) on a canvas, whole cells, no smoothing.
   * scale: "grey" (0 … 1), "positive" (0 … limit) or "signed" (−limit … limit); marked: cells (boolean) to be hatched.
   */
  function paint(canvas, values, width, { scale = "grey", limit = 1, marked = null } = {}) {
    const height = values.length / width;
    const small = new OffscreenCanvas(width, height);
    const context = small.getContext("2d");
    const image = context.createImageData(width, height);
    const unit = limit > 0 ? limit : 1;
    for (let i = 0; i < values.length; i += 1) {
      if (scale === "grey") image.data.fill(Math.round(255 * Math.min(1, Math.max(0, values[i]))), 4 * i, 4 * i + 3);
      else if (scale === "positive") colour(image.data, i, "positive", values[i] / unit);
      else colour(image.data, i, "signed", 0.5 + values[i] / unit / 2);
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    const large = canvas.getContext("2d");
    large.imageSmoothingEnabled = false;
    large.drawImage(small, 0, 0, canvas.width, canvas.height);
    if (!marked) return;
    const [dx, dy] = [canvas.width / width, canvas.height / height];
    large.fillStyle = "rgba(20, 30, 40, 0.85)";
    for (let i = 0; i < marked.length; i += 1) {
      if (marked[i]) large.fillRect((i % width) * dx + dx / 4, Math.floor(i / width) * dy + dy / 4, dx / 2, dy / 2);
    }
  }

  /** Outline of a box (cells of a picture `width` cells wide) on a canvas. */
  function outline(canvas, [left, top, w, h], width, style = "#0a7d33") {
    const context = canvas.getContext("2d");
    const unit = canvas.width / width;
    context.strokeStyle = style;
    context.lineWidth = 2;
    context.strokeRect(left * unit + 1, top * unit + 1, w * unit - 2, h * unit - 2);
  }

  const SVG = "http://www.w3.org/2000/svg";

  function element(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    if (text !== undefined) made.textContent = text;
    return made;
  }

  /**
   * Draw lines in an <svg>: lines = [{x, y, kind, step}], where `kind` is a class of style.css and `step` draws levels
   * instead of slopes. at: a place on the horizontal axis that is marked. The axes run from 0 to 1.
   */
  function chart(svg, lines, { xlabel, ylabel, at = null, dots = [] }) {
    const [width, height, left, bottom, top, right] = [300, 200, 44, 38, 8, 10];
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const px = (x) => left + x * (width - left - right);
    const py = (y) => height - bottom - y * (height - bottom - top);
    svg.replaceChildren();
    [0, 0.5, 1].forEach((tick) => {
      svg.append(element("line", { class: "grid", x1: px(0), x2: px(1), y1: py(tick), y2: py(tick) }));
      svg.append(element("text", { x: left - 5, y: py(tick) + 4, "text-anchor": "end" }, String(tick)));
      svg.append(element("text", { x: px(tick), y: height - bottom + 15, "text-anchor": "middle" }, String(tick)));
    });
    svg.append(element("text", { x: px(0.5), y: height - 6, "text-anchor": "middle" }, xlabel));
    const turn = `rotate(-90 12 ${py(0.5)})`;
    svg.append(element("text", { x: 12, y: py(0.5), "text-anchor": "middle", transform: turn }, ylabel));
    if (at !== null) svg.append(element("line", { class: "at", x1: px(at), x2: px(at), y1: py(0), y2: py(1) }));
    lines.forEach(({ x, y, kind }) => {
      const points = Array.from(y, (value, i) => `${px(x[i]).toFixed(2)},${py(value).toFixed(2)}`).join(" ");
      svg.append(element("polyline", { class: `line ${kind}`, points }));
    });
    dots.forEach(({ x, y, kind }) => {
      svg.append(element("circle", { class: `dot ${kind}`, cx: px(x), cy: py(y), r: 4 }));
    });
  }

  /** Say a sentence in the section's polite live region, once the reader has stopped moving. */
  function speaker(section) {
    const region = section.querySelector(".xai-say");
    let waiting = 0;
    return (sentence) => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        if (region.textContent !== sentence) region.textContent = sentence;
      }, 250);
    };
  }

  /** Area under a curve by trapezoids. */
  function area(x, y) {
    let sum = 0;
    for (let i = 1; i < x.length; i += 1) sum += ((x[i] - x[i - 1]) * (y[i] + y[i - 1])) / 2;
    return sum;
  }

  /** Show the live part of a section in place of its picture, and open the answer once one is chosen. */
  function start(section) {
    section.querySelectorAll(".xai-ask input").forEach((input) => {
      input.addEventListener("change", () => {
        section.querySelector(".xai-ask details").open = true;
      });
    });
    section.querySelector(".xai-live").hidden = false;
    section.querySelector(".xai-still").hidden = true;
    section.dataset.ready = Math.round(performance.now()); // milliseconds since the page was asked for
  }

  /** Run `make(section)` for the section of this name, as soon as the page is there; a fault leaves the picture. */
  function mount(name, make) {
    const ready = () => {
      const section = document.getElementById(`xai-${name}`);
      if (section) window.XAI[name] = make(section);
    };
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", ready);
    else ready();
  }

  Object.assign(window.XAI, {
    area, bytes, chart, element, fill, halves, mount, outline, paint, signed, speaker, start, strings,
  });
})();
