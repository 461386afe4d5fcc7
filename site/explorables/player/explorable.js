// Insertion and deletion player: curves and maps computed by the package, played back pixel by pixel.
"use strict";

window.XAI.mount("player", (section) => {
  const { area, bytes, chart, fill, paint, speaker, start, strings } = window.XAI;
  const text = strings(section);
  const stored = window.XAI_PLAYER;
  if (!stored) return null;
  const PIXELS = stored.size * stored.size;
  const FRACTIONS = stored.first.map((count) => count / PIXELS);
  const find = (name) => section.querySelector(`[data-part="${name}"]`);
  const chosen = (name) => section.querySelector(`input[name="xai-player-${name}"]:checked`).value;

  const floats = (code) => new Float32Array(bytes(code).buffer);
  const mixed = new Uint16Array(bytes(stored.mixed).buffer);
  const images = stored.images.map((image) => {
    const picture = Float32Array.from(bytes(image.picture), (level) => level / 255);
    const maps = Object.fromEntries(Object.entries(image.maps).map(([name, code]) => [name, floats(code)]));
    const blanks = { zero: picture.map(() => stored.grey), black: picture.map(() => 0), blur: floats(image.blur) };
    return { ...image, picture, maps, blanks };
  });
  const names = Object.keys(images[0].maps);

  /** Place of every pixel in the order of falling saliency, as `ties` orders equal ones; the package's `pixel_order`. */
  function ranks(map, ties) {
    const order = Uint16Array.from(ties === "random" ? mixed : mixed.keys());
    const sorted = Array.from(order.keys()).sort((a, b) => map[order[b]] - map[order[a]] || a - b);
    const places = new Uint16Array(map.length);
    let first = 0;
    sorted.forEach((at, place) => {
      if (place && map[order[at]] !== map[order[sorted[place - 1]]]) first = place;
      places[order[at]] = ties === "together" ? first : place;
    });
    return places;
  }

  const current = () => ({
    image: images[find("image").selectedIndex],
    map: find("map").value,
    blank: chosen("blank"),
    ties: chosen("ties"),
    step: Number(find("step").value),
  });

  const curvesOf = ({ image, blank, ties }, map) => image.curves[`${blank} ${ties} ${map}`];

  /** Insertion area, deletion area and ID score of every map as things are set. */
  function scores(setting) {
    return names.map((name) => {
      const [insertion, deletion] = curvesOf(setting, name).map((curve) => area(FRACTIONS, curve));
      return { name, insertion, deletion, id: insertion - deletion };
    });
  }

  const say = speaker(section);
  let kept = { key: "", places: null };

  function draw() {
    const setting = current();
    const { image, map, blank, ties, step } = setting;
    const key = [image.id, map, ties].join(" ");
    if (kept.key !== key) kept = { key, places: ranks(image.maps[map], ties) };
    const { places } = kept;
    const count = stored.first[step];
    const hidden = image.blanks[blank];
    paint(find("original"), image.picture, stored.size);
    const values = image.maps[map];
    const least = values.reduce((a, b) => Math.min(a, b));
    const span = values.reduce((a, b) => Math.max(a, b)) - least;
    paint(find("shown"), values.map((value) => value - least), stored.size, { scale: "positive", limit: span });
    paint(find("inserted"), image.picture.map((value, i) => (places[i] < count ? value : hidden[i])), stored.size);
    paint(find("deleted"), image.picture.map((value, i) => (places[i] < count ? hidden[i] : value)), stored.size);
    const [insertion, deletion] = curvesOf(setting, map);
    const lines = [
      { x: FRACTIONS, y: insertion, kind: "accent" },
      { x: FRACTIONS, y: deletion, kind: "second" },
    ];
    const dots = [insertion, deletion].map((y, i) => ({ x: FRACTIONS[step], y: y[step], kind: ["accent", "second"][i] }));
    chart(find("chart"), lines, { xlabel: text.share, ylabel: text.probability, at: FRACTIONS[step], dots });
    const table = scores(setting).sort((a, b) => b.id - a.id);
    const own = table.find(({ name }) => name === map);
    const shown = (value) => value.toFixed(2).replace("-", "−");
    const numbers = { insertion: shown(own.insertion), deletion: shown(own.deletion), id: shown(own.id) };
    find("areas").textContent = fill(text.areas, numbers);
    find("tied").textContent = fill(text.tied, { share: Math.round(100 * image.tied[map]) });
    find("shown-name").textContent = text.maps[map];
    find("p-inserted").textContent = shown(insertion[step]);
    find("p-deleted").textContent = shown(deletion[step]);
    find("pixels").textContent = fill(text.pixels, { count, all: PIXELS });
    find("table").replaceChildren(...table.map((row, i) => {
      const line = document.createElement("tr");
      if (i === 0) line.classList.add("first");
      if (row.name === map) line.classList.add("chosen");
      const title = document.createElement("th");
      title.scope = "row";
      title.textContent = text.maps[row.name];
      line.append(title, ...[row.insertion, row.deletion, row.id].map((value) => {
        const cell = document.createElement("td");
        cell.textContent = shown(value);
        return cell;
      }));
      return line;
    }));
    say(fill(text.say, {
      map: text.maps[map], inserted: shown(insertion[step]), deleted: shown(deletion[step]), count,
      winner: text.maps[table[0].name], score: shown(table[0].id),
    }));
  }

  images.forEach((image, i) => find("image").append(new Option(fill(text.image, { number: i + 1, id: image.id }))));
  names.forEach((name) => find("map").append(new Option(text.maps[name], name, name === "LRP-BN", name === "LRP-BN")));
  find("step").max = stored.steps;
  find("step").value = Math.round(stored.steps / 8);
  section.querySelectorAll(".xai-live input, .xai-live select").forEach((input) => {
    input.addEventListener("input", draw);
  });

  let playing = 0;
  function stop() {
    clearInterval(playing);
    playing = 0;
    find("play").setAttribute("aria-pressed", "false");
    find("play").textContent = text.play;
  }
  find("play").addEventListener("click", () => {
    if (playing) {
      stop();
      return;
    }
    if (Number(find("step").value) === stored.steps) find("step").value = 0;
    find("play").setAttribute("aria-pressed", "true");
    find("play").textContent = text.pause;
    playing = setInterval(() => {
      find("step").value = Number(find("step").value) + 1;
      draw();
      if (Number(find("step").value) === stored.steps) stop();
    }, 200);
  });

  start(section);
  draw();

  /** What the page shows, as plain arrays: tests compare it with the package. */
  function state() {
    const setting = current();
    const [insertion, deletion] = curvesOf(setting, setting.map);
    const { image, map, blank, ties, step } = setting;
    const places = Array.from(ranks(image.maps[map], ties));
    return { image: image.id, map, blank, ties, step, insertion, deletion, places, scores: scores(setting) };
  }
  return { draw, state };
});
