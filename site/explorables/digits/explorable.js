// Draw a digit: paper 1's ID-CVAE redraws what was drawn as each of ten labels (eq. 1), and morphs it into the typical
// digit of a label (eq. 2). Until a click loads the network (ONNX, run by onnxruntime-web) cached examples are shown.
"use strict";

window.XAI.mount("digits", (section) => {
  const { bytes, fill, halves, paint, speaker, start, strings } = window.XAI;
  const text = strings(section);
  const stored = window.XAI_DIGITS;
  if (!stored) return null;
  const [SIDE, LABELS, STEPS] = [28, 10, stored.steps];
  const AREA = SIDE * SIDE;
  const place = section.closest("[data-assets]");
  const assets = place ? `${place.dataset.assets}digits/` : "";
  const runtime = new URL(place ? place.dataset.runtime : "../onnxruntime/", document.baseURI).href;
  const find = (name) => section.querySelector(`[data-part="${name}"]`);
  const say = speaker(section);

  const codes = halves(stored.codes); // (10, codes of each class, latent)
  const perClass = codes.length / LABELS / stored.latent;
  const codesOf = (label) => Array.from({ length: perClass }, (_, i) => {
    const at = (label * perClass + i) * stored.latent;
    return codes.subarray(at, at + stored.latent);
  });

  // paths in the latent space ------------------------------------------------------------------------------------

  const distance = (a, b) => Math.sqrt(a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0));

  /** Eq. (2): z_i = z_0 + (i / n)(z_n − z_0). */
  function straightPath(from, goal) {
    return Array.from({ length: STEPS + 1 }, (_, i) => Array.from(from, (value, j) => value + (i / STEPS) * (goal[j] - value)));
  }

  /** Indices of the nearest codes, nearest first. */
  function nearest(nodes, to, count, self = -1) {
    const far = nodes.map((node, i) => [i === self ? Infinity : distance(node, to), i]);
    return far.sort((a, b) => a[0] - b[0]).slice(0, count);
  }

  /** The package's path_along_data: the shortest way over squared edges through nearest neighbours, evenly spaced. */
  function pathAlongData(from, goal, label) {
    const nodes = [...codesOf(label), goal];
    const last = nodes.length - 1;
    const edges = nodes.map(() => new Map());
    nodes.forEach((node, i) => nearest(nodes, node, stored.neighbours, i).forEach(([far, j]) => {
      edges[i].set(j, far ** 2);
      edges[j].set(i, far ** 2);
    }));
    const [cost, next, open] = [nodes.map(() => Infinity), nodes.map(() => -1), new Set(nodes.keys())];
    cost[last] = 0;
    while (open.size) {
      let best = -1;
      open.forEach((i) => { if (best < 0 || cost[i] < cost[best]) best = i; });
      open.delete(best);
      edges[best].forEach((edge, j) => {
        if (cost[best] + edge < cost[j]) [cost[j], next[j]] = [cost[best] + edge, best];
      });
    }
    let node = -1;
    let least = Infinity;
    nearest(nodes, from, stored.neighbours).forEach(([far, i]) => {
      if (node < 0 || far ** 2 + cost[i] < least) [node, least] = [i, far ** 2 + cost[i]];
    });
    const chain = [from];
    for (; node >= 0; node = next[node]) chain.push(nodes[node]);
    return evenlySpaced([...chain, goal]);
  }

  function evenlySpaced(points) {
    const lengths = [0];
    for (let i = 1; i < points.length; i += 1) lengths.push(lengths[i - 1] + distance(points[i], points[i - 1]));
    return Array.from({ length: STEPS + 1 }, (_, i) => {
      const wanted = (lengths[lengths.length - 1] * i) / STEPS;
      let k = 1;
      while (k < lengths.length - 1 && lengths[k] < wanted) k += 1;
      const span = lengths[k] - lengths[k - 1];
      const share = span > 0 ? (wanted - lengths[k - 1]) / span : 0;
      return Array.from(points[k - 1], (value, j) => value + share * (points[k][j] - value));
    });
  }

  // the network ----------------------------------------------------------------------------------------------------

  let network = null; // {encoder, decoder, ort} once loaded

  function script(address) {
    return new Promise((resolve, reject) => {
      const element = document.createElement("script");
      element.src = address;
      element.onload = resolve;
      element.onerror = () => reject(new Error(`${address} did not load`));
      document.head.append(element);
    });
  }

  async function load() {
    if (!window.ort) await script(`${runtime}ort.wasm.min.js`);
    const { ort } = window;
    ort.env.wasm.wasmPaths = runtime;
    ort.env.wasm.numThreads = 1; // threads would need special headers
    const session = (name) => ort.InferenceSession.create(`${assets}${name}.onnx`, { executionProviders: ["wasm"] });
    const [encoder, decoder] = [await session("encoder"), await session("decoder")];
    network = { encoder, decoder, ort };
  }

  let turn = Promise.resolve(); // a session runs one thing at a time
  const run = (session, feeds) => {
    turn = turn.catch(() => {}).then(() => session.run(feeds));
    return turn;
  };

  /** E(x), the mean: 784 grey levels in [0, 1] -> latent. */
  async function encode(pixels) {
    const x = new network.ort.Tensor("float32", Float32Array.from(pixels), [1, 1, SIDE, SIDE]);
    return (await run(network.encoder, { x })).z.data;
  }

  /** D(z, l) before the sigmoid: latents and labels -> one array of 784 logits each. */
  async function decode(latents, labels) {
    const z = Float32Array.from(latents.flatMap((latent) => Array.from(latent)));
    const label = new Float32Array(labels.length * LABELS);
    labels.forEach((one, i) => { label[i * LABELS + one] = 1; });
    const found = await run(network.decoder, {
      z: new network.ort.Tensor("float32", z, [latents.length, stored.latent]),
      label: new network.ort.Tensor("float32", label, [labels.length, LABELS]),
    });
    return labels.map((_, i) => found.logits.data.slice(i * AREA, (i + 1) * AREA));
  }

  /** Loss_Rec: binary cross-entropy of x under the logits, summed over the pixels, in nats. */
  function reconstructionLoss(logits, pixels) {
    let sum = 0;
    for (let i = 0; i < AREA; i += 1) {
      sum += Math.max(logits[i], 0) + Math.log1p(Math.exp(-Math.abs(logits[i]))) - pixels[i] * logits[i];
    }
    return sum;
  }

  const sigmoid = (logits) => logits.map((value) => 1 / (1 + Math.exp(-value)));

  // what is shown ------------------------------------------------------------------------------------------------

  const empty = () => new Float32Array(AREA);
  const view = { pixels: empty(), z: null, losses: null, drawn: null, label: 0, chosen: false, film: null, example: 0 };
  const ink = empty(); // what was drawn, before it is centred

  const unpack = (code) => Float32Array.from(bytes(code), (level) => level / 255);
  const pieces = (values) => Array.from({ length: values.length / AREA }, (_, i) => values.subarray(i * AREA, (i + 1) * AREA));
  const path = () => section.querySelector('input[name="xai-digits-path"]:checked').value;
  const best = (losses) => losses.indexOf(Math.min(...losses));

  function showExample(number) {
    const example = stored.examples[number];
    Object.assign(view, { example: number, pixels: unpack(example.pixels), losses: example.losses, chosen: false, z: null });
    Object.assign(view, { drawn: pieces(unpack(example.drawn)), label: best(example.losses) });
    ink.set(view.pixels);
    if (network) return think(view.pixels);
    view.film = pieces(unpack(example.films[path()]));
    draw();
    return Promise.resolve();
  }

  /** Ten redrawings with their losses, and the film of the winner or of the label that was clicked. */
  async function think(pixels) {
    const z = await encode(pixels);
    const logits = await decode(Array(LABELS).fill(z), Array.from({ length: LABELS }, (_, l) => l));
    const losses = logits.map((one) => reconstructionLoss(one, pixels));
    Object.assign(view, { pixels, z, losses, drawn: logits.map(sigmoid) });
    if (!view.chosen) view.label = best(losses);
    await film();
  }

  async function film() {
    if (network && view.z) {
      const goal = stored.prototypes[view.label];
      const way = path() === "straight" ? straightPath(view.z, goal) : pathAlongData(view.z, goal, view.label);
      view.path = way;
      view.film = (await decode(way, way.map(() => view.label))).map(sigmoid);
    } else if (view.label === best(view.losses)) {
      view.film = pieces(unpack(stored.examples[view.example].films[path()]));
    }
    draw();
  }

  const buttons = Array.from({ length: LABELS }, (_, label) => {
    const button = document.createElement("button");
    const canvas = document.createElement("canvas");
    [button.type, canvas.width, canvas.height] = ["button", 56, 56];
    button.append(canvas, document.createElement("b"), " ", document.createElement("span"));
    button.querySelector("b").textContent = label;
    button.addEventListener("click", () => {
      Object.assign(view, { label, chosen: true });
      film();
    });
    find("ten").append(button);
    return button;
  });

  const nats = (value) => value.toFixed(1);

  function draw() {
    paint(find("pad"), network ? ink : view.pixels, SIDE);
    if (network && cursor.shown) {
      const context = find("pad").getContext("2d");
      context.strokeStyle = cursor.down ? "#e8590c" : "#4dabf7";
      context.lineWidth = 2;
      context.strokeRect(cursor.x * 10 - 1, cursor.y * 10 - 1, 12, 12);
    }
    paint(find("seen"), view.pixels, SIDE);
    if (!view.losses) return;
    const winner = best(view.losses);
    const second = view.losses.map((loss, l) => (l === winner ? Infinity : loss));
    buttons.forEach((button, label) => {
      paint(button.querySelector("canvas"), view.drawn[label], SIDE);
      button.querySelector("span").textContent = nats(view.losses[label]);
      button.classList.toggle("best", label === winner);
      button.setAttribute("aria-pressed", String(label === view.label));
      button.setAttribute("aria-label", fill(text.button, { label, loss: nats(view.losses[label]) }));
      button.disabled = !network && label !== winner;
    });
    const known = network && !view.fromExample ? "" : fill(text.known, { label: stored.examples[view.example].label });
    const values = { winner, loss: nats(view.losses[winner]), second: best(second), other: nats(Math.min(...second)) };
    find("verdict").textContent = `${fill(text.verdict, values)} ${known}`;
    const frame = Number(find("frame").value);
    paint(find("morph"), view.film[frame], SIDE);
    find("place").textContent = `${frame} / ${STEPS}`;
    const strip = find("strip").getContext("2d");
    const tile = new OffscreenCanvas(56, 56);
    strip.clearRect(0, 0, 412, 56);
    for (let i = 0; i < 7; i += 1) {
      paint(tile, view.film[Math.round((i * STEPS) / 6)], SIDE);
      strip.drawImage(tile, i * 59.3, 0);
    }
    const pen = cursor.shown ? `${fill(cursor.down ? text.down : text.up, { row: cursor.y + 1, column: cursor.x + 1 })} ` : "";
    say(`${pen}${fill(text.verdict, values)} ${fill(text.frame, { frame, all: STEPS, label: view.label })}`);
  }

  // drawing ------------------------------------------------------------------------------------------------------

  const cursor = { x: 14, y: 6, down: false, shown: false };

  /** A soft dot of ink about (x, y), in pixels. */
  function dot(x, y) {
    for (let row = 0; row < SIDE; row += 1) {
      for (let column = 0; column < SIDE; column += 1) {
        const level = Math.min(1, Math.max(0, 1.9 - Math.hypot(column + 0.5 - x, row + 0.5 - y)));
        ink[row * SIDE + column] = Math.max(ink[row * SIDE + column], level);
      }
    }
  }

  /** As MNIST was made: the ink's box scaled to 20 pixels, its centre of mass in the middle of 28. */
  function centred(values) {
    let [left, right, top, bottom] = [SIDE, -1, SIDE, -1];
    values.forEach((value, i) => {
      if (value < 0.1) return;
      [left, right] = [Math.min(left, i % SIDE), Math.max(right, i % SIDE)];
      [top, bottom] = [Math.min(top, Math.floor(i / SIDE)), Math.max(bottom, Math.floor(i / SIDE))];
    });
    if (right < 0) return Float32Array.from(values);
    const scale = Math.max(right - left + 1, bottom - top + 1) / 20;
    const at = (y, x) => (y < 0 || x < 0 || y >= SIDE || x >= SIDE ? 0 : values[y * SIDE + x]);
    const sample = (y, x) => {
      const [y0, x0] = [Math.floor(y), Math.floor(x)];
      const [dy, dx] = [y - y0, x - x0];
      return (1 - dy) * ((1 - dx) * at(y0, x0) + dx * at(y0, x0 + 1)) + dy * ((1 - dx) * at(y0 + 1, x0) + dx * at(y0 + 1, x0 + 1));
    };
    let [mass, my, mx] = [0, 0, 0];
    values.forEach((value, i) => {
      mass += value;
      my += value * Math.floor(i / SIDE);
      mx += value * (i % SIDE);
    });
    return Float32Array.from({ length: AREA }, (_, i) => {
      const [y, x] = [Math.floor(i / SIDE) - 13.5, (i % SIDE) - 13.5];
      return sample(my / mass + y * scale, mx / mass + x * scale);
    });
  }

  let busy = false;
  let again = false;
  /** Redraw and compute once what was drawn has settled into a frame; strokes in between are not waited for. */
  async function drawn() {
    view.fromExample = false;
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    do {
      again = false;
      await think(find("centre").checked ? centred(ink) : Float32Array.from(ink));
    } while (again);
    busy = false;
  }

  const pad = find("pad");
  let pen = null;
  const where = (event) => {
    const frame = pad.getBoundingClientRect();
    return { x: ((event.clientX - frame.left) / frame.width) * SIDE, y: ((event.clientY - frame.top) / frame.height) * SIDE };
  };
  pad.addEventListener("pointerdown", (event) => {
    if (!network) return;
    pen = where(event);
    cursor.shown = false;
    pad.setPointerCapture(event.pointerId);
    dot(pen.x, pen.y);
    drawn();
  });
  pad.addEventListener("pointermove", (event) => {
    if (!pen) return;
    const to = where(event);
    const length = Math.hypot(to.x - pen.x, to.y - pen.y);
    for (let s = 0.5; s <= length; s += 0.5) dot(pen.x + ((to.x - pen.x) * s) / length, pen.y + ((to.y - pen.y) * s) / length);
    pen = to;
    drawn();
  });
  ["pointerup", "pointercancel"].forEach((name) => pad.addEventListener(name, () => { pen = null; }));

  pad.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!network || !(event.key in moves || event.key === " " || event.key === "Delete")) return;
    event.preventDefault();
    cursor.shown = true;
    if (event.key === "Delete") {
      clear();
      return;
    }
    if (event.key === " ") cursor.down = !cursor.down;
    else {
      cursor.x = Math.min(SIDE - 1, Math.max(0, cursor.x + moves[event.key][0]));
      cursor.y = Math.min(SIDE - 1, Math.max(0, cursor.y + moves[event.key][1]));
    }
    if (cursor.down) {
      dot(cursor.x + 0.5, cursor.y + 0.5);
      drawn();
    } else draw();
  });

  function clear() {
    ink.fill(0);
    view.chosen = false;
    drawn();
  }

  find("clear").addEventListener("click", clear);
  find("centre").addEventListener("change", drawn);
  find("frame").max = STEPS;
  find("frame").addEventListener("input", draw);
  section.querySelectorAll('input[name="xai-digits-path"]').forEach((input) => input.addEventListener("change", film));
  stored.examples.forEach((example, i) => {
    find("example").append(new Option(fill(text.example, { label: example.label, taken: best(example.losses) }), String(i)));
  });
  find("example").addEventListener("change", () => {
    view.fromExample = true;
    showExample(find("example").selectedIndex);
  });
  find("keys").hidden = true;
  const size = fill(text.size, { size: (stored.bytes / 1e6).toFixed(1) });
  find("state").textContent = size;
  find("load").addEventListener("click", async () => {
    find("load").disabled = true;
    find("state").textContent = text.loading;
    try {
      await load();
      ["clear", "centre"].forEach((name) => { find(name).disabled = false; });
      find("keys").hidden = false;
      find("state").textContent = text.ready;
      await showExample(view.example);
      pad.focus();
    } catch (error) {
      network = null; // the runtime does not start twice in a page
      find("state").textContent = location.protocol === "file:" ? text.file : text.failed;
    }
  });

  view.fromExample = true;
  start(section);
  find("example").selectedIndex = Math.min(4, stored.examples.length - 1); // the first that the network gets wrong
  showExample(find("example").selectedIndex);

  /** What the page shows, as plain arrays: tests compare it with the package. */
  function state() {
    const plain = (values) => values && Array.from(values);
    return {
      live: Boolean(network), pixels: plain(view.pixels), losses: view.losses, label: view.label, z: plain(view.z),
      path: view.path, film: view.film.map(plain), drawn: view.drawn.map(plain), example: stored.examples[view.example].id,
    };
  }
  return { state, think, film, view, centred };
});
