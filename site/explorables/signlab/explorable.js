// MoRAM sign lab: paper 2's network (VGG16 with global average pooling) run in the page on a rectangle that one moves.
// Symbols as in notebook 02: A feature maps, w weights of the output, L a map on the image's grid, R = L / ΣΣL.
"use strict";

window.XAI.mount("signlab", (section) => {
  const { area, chart, fill, halves, outline, paint, signed, speaker, start, strings } = window.XAI;
  const text = strings(section);
  const net = window.XAI_SIGNLAB;
  if (!net) return null;
  const SIZE = net.size;
  const LEVELS = Array.from({ length: 101 }, (_, i) => i / 100);
  const READINGS = ["signed", "clip", "shift"];
  const find = (name) => section.querySelector(`[data-part="${name}"]`);

  const weights = halves(net.weights); // every tensor behind the other, half precision exactly
  const part = ([at, count]) => weights.subarray(at, at + count);
  const layers = net.layers.map((layer) => (layer.kind !== "conv" ? layer : {
    ...layer, sent: transposed(part(layer.weight), layer.outputs), biases: part(layer.bias),
  }));
  const [head, bias] = [part(net.head.weight), part(net.head.bias)[0]];

  // Inside the network a picture lies pixel by pixel, its channels side by side: (side² × channels).

  /** Weights (outputs × inputs × 9) -> (9 × inputs × outputs): what one input cell sends to all outputs lies together. */
  function transposed(values, outputs) {
    const inputs = values.length / 9 / outputs;
    const out = new Float64Array(values.length);
    for (let o = 0; o < outputs; o += 1) {
      for (let c = 0; c < inputs; c += 1) {
        for (let tap = 0; tap < 9; tap += 1) out[(tap * inputs + c) * outputs + o] = values[(o * inputs + c) * 9 + tap];
      }
    }
    return out;
  }

  /** Convolution 3×3 with zero padding and ReLU: (side² × inputs) -> (side² × outputs). Cells that are 0 are passed over. */
  function convolve(cells, side, inputs, { sent, outputs, biases }) {
    const out = new Float64Array(side * side * outputs);
    for (let i = 0; i < out.length; i += 1) out[i] = biases[i % outputs];
    for (let y = 0; y < side; y += 1) {
      for (let x = 0; x < side; x += 1) {
        for (let c = 0; c < inputs; c += 1) {
          const value = cells[(y * side + x) * inputs + c];
          if (value === 0) continue;
          for (let tap = 0; tap < 9; tap += 1) {
            const row = y + 1 - Math.floor(tap / 3);
            const column = x + 1 - (tap % 3);
            if (row < 0 || row >= side || column < 0 || column >= side) continue;
            const to = (row * side + column) * outputs;
            const from = (tap * inputs + c) * outputs;
            for (let o = 0; o < outputs; o += 1) out[to + o] += value * sent[from + o];
          }
        }
      }
    }
    for (let i = 0; i < out.length; i += 1) if (out[i] < 0) out[i] = 0;
    return out;
  }

  /** Largest of every 2×2 cells: (side² × channels) -> ((side / 2)² × channels). */
  function pool(cells, side, channels) {
    const half = side / 2;
    const out = new Float64Array(half * half * channels);
    const step = side * channels;
    for (let i = 0; i < out.length; i += 1) {
      const [c, place] = [i % channels, Math.floor(i / channels)];
      const p = (2 * Math.floor(place / half) * side + 2 * (place % half)) * channels + c;
      out[i] = Math.max(cells[p], cells[p + channels], cells[p + step], cells[p + step + channels]);
    }
    return out;
  }

  /** The last feature maps A (K × side²) of a picture with this mask (white on black, three equal channels). */
  function features(mask) {
    let [cells, side, channels] = [new Float64Array(3 * SIZE * SIZE), SIZE, 3];
    for (let i = 0; i < cells.length; i += 1) cells[i] = mask[Math.floor(i / 3)] ? 1 : 0;
    layers.forEach((layer) => {
      if (layer.kind === "conv") {
        cells = convolve(cells, side, channels, layer);
        channels = layer.outputs;
      } else {
        cells = pool(cells, side, channels);
        side /= 2;
      }
    });
    const planes = cells.map((_, i) => cells[(i % (side * side)) * channels + Math.floor(i / (side * side))]);
    return { planes, side, channels };
  }

  /** Σ_k weight(w_k) A^k, cell by cell. */
  function weighted({ planes, side, channels }, weight) {
    const out = new Float64Array(side * side);
    for (let k = 0; k < channels; k += 1) {
      const w = weight(head[k]);
      for (let i = 0; i < out.length; i += 1) out[i] += w * planes[k * out.length + i];
    }
    return out;
  }

  /** A map enlarged to the image by Lanczos (§4): M · map · Mᵀ, M as the package has it. */
  function enlarge(map, side) {
    const rows = new Float64Array(SIZE * side);
    const out = new Float64Array(SIZE * SIZE);
    for (let y = 0; y < SIZE; y += 1) {
      for (let j = 0; j < side; j += 1) {
        for (let i = 0; i < side; i += 1) rows[y * side + j] += net.lanczos[y][i] * map[i * side + j];
      }
      for (let x = 0; x < SIZE; x += 1) {
        for (let j = 0; j < side; j += 1) out[y * SIZE + x] += rows[y * side + j] * net.lanczos[x][j];
      }
    }
    return out;
  }

  /** A map in proportion to its R under a reading: xai_utils.metrics.pixel_accuracy_curve says what they are. */
  function positiveSum(map, reading) {
    let values = Float64Array.from(map);
    if (reading === "clip") values = values.map((value) => Math.max(value, 0));
    if (reading === "shift") {
      const least = values.reduce((a, b) => Math.min(a, b));
      values = values.map((value) => value - least);
    }
    const total = values.reduce((a, b) => a + b, 0);
    const size = values.reduce((a, b) => a + Math.abs(b), 0);
    const known = Math.abs(total) > 2 * values.length * Number.EPSILON * size;
    return values.map((value) => (known ? value * Math.sign(total) : 1));
  }

  /** Order by importance, ascending, and each pixel's cumulative importance, which ends at 1. */
  function cumulate(values) {
    const order = Uint16Array.from(values.keys()).sort((a, b) => values[a] - values[b] || a - b);
    const cumulative = new Float64Array(values.length);
    let sum = 0;
    order.forEach((pixel, place) => {
      sum += values[pixel];
      cumulative[place] = sum;
    });
    return { order, cumulative: cumulative.map((value) => value / sum) };
  }

  /** How many levels are at most this high. */
  function reached(value) {
    let [low, high] = [0, LEVELS.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (LEVELS[middle] <= value) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Pixel accuracy at every level; equal pixels share their part of the mask (the mean over their orders). */
  function accuracies(map, mask, reading) {
    const values = positiveSum(map, reading);
    const { order, cumulative } = cumulate(values);
    const [right, wrong] = [new Float64Array(LEVELS.length + 1), new Float64Array(LEVELS.length + 1)];
    for (let first = 0; first < order.length; ) {
      let last = first;
      let inside = 0;
      while (last < order.length && values[order[last]] === values[order[first]]) inside += mask[order[last++]] ? 1 : 0;
      const share = inside / (last - first);
      for (let place = first; place < last; place += 1) {
        const black = reached(cumulative[place]);
        right[black] += share;
        wrong[black] += 1 - share;
      }
      first = last;
    }
    const outside = mask.reduce((n, one) => n + (one ? 0 : 1), 0);
    let sum = 0;
    const curve = new Array(LEVELS.length);
    for (let t = LEVELS.length - 1; t >= 0; t -= 1) {
      sum += right[t + 1] - wrong[t + 1];
      curve[t] = (sum + outside) / mask.length;
    }
    return curve;
  }

  /** Pixels that are marked at threshold r. */
  function blackPixels(values, r) {
    const { order, cumulative } = cumulate(values);
    const black = new Uint8Array(values.length);
    order.forEach((pixel, place) => {
      black[pixel] = cumulative[place] >= r ? 1 : 0;
    });
    return black;
  }

  /** sin of the rescaled area (§4); null where no training image has such a rectangle. */
  function targetOf([, , w, h]) {
    const [low, high] = net.area.map((share) => share * SIZE * SIZE);
    if (w * h < low || w * h >= high || Math.max(w, h) > 2 * Math.min(w, h)) return null;
    return Math.sin(-Math.PI + (2 * Math.PI * (w * h - low)) / (high - low));
  }

  const box = { left: 0, top: 0, width: 0, height: 0 };
  const say = speaker(section);
  let found = {};

  function compute() {
    const mask = new Uint8Array(SIZE * SIZE);
    for (let y = box.top; y < box.top + box.height; y += 1) {
      for (let x = box.left; x < box.left + box.width; x += 1) mask[y * SIZE + x] = 1;
    }
    const A = features(mask);
    const cells = A.side * A.side;
    const ram = weighted(A, (w) => w);
    const moram = weighted(A, (w) => Math.abs(w) / cells); // eq. (4): the gradient of GAP is w / Z
    const prediction = ram.reduce((a, b) => a + b, 0) / cells + bias;
    const maps = { RAM: enlarge(ram, A.side), MoRAM: enlarge(moram, A.side) };
    const curves = {};
    READINGS.forEach((reading) => {
      curves[reading] = {};
      Object.entries(maps).forEach(([name, map]) => {
        curves[reading][name] = accuracies(map, mask, reading);
      });
    });
    const sum = maps.RAM.reduce((a, b) => a + b, 0);
    const target = targetOf([box.left, box.top, box.width, box.height]);
    found = { mask, A, ram, moram, prediction, target, maps, curves, sum };
  }

  const largest = (values) => values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);

  function draw() {
    const { mask, A, ram, moram, prediction, target, maps, curves, sum } = found;
    const place = [box.left, box.top, box.width, box.height];
    const r = Number(find("threshold").value);
    paint(find("image"), Array.from(mask), SIZE);
    outline(find("image"), place, SIZE, "#d9480f");
    const Z = A.side * A.side;
    const limit = Math.max(largest(ram), largest(moram) * Z);
    paint(find("ram"), ram, A.side, { scale: "signed", limit });
    paint(find("moram"), moram.map((value) => value * Z), A.side, { scale: "signed", limit });
    const R = maps.RAM.map((value) => value / sum);
    const reading = find("reading").value;
    const marked = blackPixels(positiveSum(maps.RAM, reading), r);
    paint(find("divided"), R, SIZE, { scale: "signed", limit: largest(R), marked });
    ["ram", "moram", "divided"].forEach((name) => outline(find(name), place, SIZE));
    const strip = find("features");
    const context = strip.getContext("2d");
    context.clearRect(0, 0, strip.width, strip.height);
    const order = Array.from(head.keys()).sort((a, b) => head[b] - head[a]);
    const terms = order.map((k) => A.planes.slice(k * Z, (k + 1) * Z).map((value) => value * head[k]));
    const top = Math.max(...terms.map(largest));
    const tile = new OffscreenCanvas(4 * A.side, 4 * A.side);
    terms.forEach((term, i) => {
      paint(tile, term, A.side, { scale: "signed", limit: top });
      context.drawImage(tile, (i % 16) * (tile.width + 2), Math.floor(i / 16) * (tile.width + 2));
    });
    READINGS.forEach((name) => {
      const lines = [
        { x: LEVELS, y: curves[name].RAM, kind: "second" },
        { x: LEVELS, y: curves[name].MoRAM, kind: "accent" },
      ];
      chart(find(`curve-${name}`), lines, { xlabel: text.threshold, ylabel: text.accuracy, at: r });
      const areas = ["RAM", "MoRAM"].map((map) => area(LEVELS, curves[name][map]).toFixed(2));
      find(`area-${name}`).textContent = fill(text.areas, { ram: areas[0], moram: areas[1] });
    });
    const values = {
      target: target === null ? text.unknown : signed(target),
      prediction: signed(prediction),
      sum: signed(sum, 1),
      turned: sum < 0 ? text.turned : text.upright,
    };
    Object.entries(values).forEach(([name, value]) => {
      find(name).textContent = value;
    });
    say(fill(text.say, values));
  }

  function show() {
    compute();
    draw();
    ["left", "top", "width", "height"].forEach((name) => {
      find(name).value = box[name];
      find(`${name}-value`).textContent = box[name];
    });
  }

  /** Bring the rectangle to these sides and place, inside the picture. */
  function put({ left = box.left, top = box.top, width = box.width, height = box.height }) {
    const within = (value, least, most) => Math.min(most, Math.max(least, Math.round(value)));
    box.width = within(width, 2, SIZE);
    box.height = within(height, 2, SIZE);
    box.left = within(left, 0, SIZE - box.width);
    box.top = within(top, 0, SIZE - box.height);
    show();
  }

  /** Larger or smaller by one pixel on all sides in turn, so that the area grows evenly around the same middle. */
  function grow(step) {
    const wider = step > 0 ? box.width <= box.height : box.width > box.height;
    const moved = (side) => (Math.min(side, side + step) % 2 ? 0 : step); // one back is where one step came from
    if (wider) put({ left: box.left - moved(box.width), width: box.width + step });
    else put({ top: box.top - moved(box.height), height: box.height + step });
  }

  ["left", "top", "width", "height"].forEach((name) => {
    find(name).addEventListener("input", (event) => put({ [name]: Number(event.target.value) }));
  });
  ["threshold", "reading"].forEach((name) => {
    find(name).addEventListener("input", () => {
      find("threshold-value").textContent = Number(find("threshold").value).toFixed(2);
      draw();
    });
  });
  section.querySelectorAll("[data-box]").forEach((button) => {
    button.addEventListener("click", () => {
      const [left, top, width, height] = JSON.parse(button.dataset.box);
      put({ left, top, width, height });
    });
  });

  const stage = find("image");
  stage.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "+" || event.key === "=") grow(1);
    else if (event.key === "-") grow(-1);
    else if (event.key in moves) {
      const [dx, dy] = moves[event.key];
      if (event.shiftKey) put({ width: box.width + dx, height: box.height + dy });
      else put({ left: box.left + dx, top: box.top + dy });
    } else return;
    event.preventDefault();
  });

  let held = null; // where the pointer took hold, and of what
  let waiting = 0;
  stage.addEventListener("pointerdown", (event) => {
    const at = where(event);
    const corner = Math.hypot(at.x - box.left - box.width, at.y - box.top - box.height) < 3;
    held = { ...at, corner, from: { ...box } };
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!held) return;
    const at = where(event);
    const [dx, dy] = [at.x - held.x, at.y - held.y];
    const { from } = held;
    const next = held.corner
      ? { width: from.width + dx, height: from.height + dy, left: from.left, top: from.top }
      : { left: from.left + dx, top: from.top + dy };
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => put(next));
  });
  ["pointerup", "pointercancel"].forEach((name) => stage.addEventListener(name, () => { held = null; }));

  function where(event) {
    const frame = stage.getBoundingClientRect();
    return { x: ((event.clientX - frame.left) / frame.width) * SIZE, y: ((event.clientY - frame.top) / frame.height) * SIZE };
  }

  start(section);
  const [left, top, width, height] = net.first;
  put({ left, top, width, height });

  /** What the page shows, as plain arrays: tests compare it with the package. */
  function state() {
    const { ram, moram, prediction, target, maps, curves, sum } = found;
    const plain = Object.fromEntries(Object.entries(maps).map(([name, map]) => [name, Array.from(map)]));
    return { box: { ...box }, ram: Array.from(ram), moram: Array.from(moram), prediction, target, maps: plain, curves, sum };
  }
  return { put, grow, state, compute, draw, levels: LEVELS, accuracies };
});
