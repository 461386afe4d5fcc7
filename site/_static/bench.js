// The verdict bench. The rule of a claim (xai_utils/suite/rules.py) and the merging of seeds (over_seeds.py) once more,
// so that a reader may move a bound or leave a seed out. tests/site/test_bench.py compares every verdict with Python's.
(() => {
  "use strict";

  // ---- the rule ------------------------------------------------------------------------------------------------
  const mean = (x) => (x.every((v) => v === x[0]) ? x[0] : x.reduce((a, b) => a + b, 0) / x.length);

  /** A metric over the kept seeds, as over_seeds.aggregate: {value, low, high}, value null where undefined. */
  function merge(metric, kept, t) {
    const pick = (name) => kept.map((i) => metric[name][i]);
    const values = pick("values"), n = values.length;
    if (values.includes(null) || (metric.p && n > 1)) return { value: null, low: null, high: null };
    const m = mean(values), ends = {};
    const sd = n > 1 ? Math.sqrt(values.reduce((a, v) => a + (v - m) ** 2, 0) / (n - 1)) : 0;
    const equal = values.every((v) => v === values[0]);
    const half = n > 1 && !equal ? (t[n - 1] * sd) / Math.sqrt(n) : 0;
    for (const [end, own, sign] of [["low", pick("lows"), -1], ["high", pick("highs"), 1]]) {
      const both = [...(own.includes(null) ? [] : [mean(own)]), ...(n > 1 ? [m + sign * half] : [])];
      if (!both.length) { ends[end] = null; continue; }
      const wide = sign < 0 ? Math.min(...both) : Math.max(...both);
      const bound = sign < 0 ? metric.least : metric.most;
      ends[end] = bound === null ? wide : sign < 0 ? Math.max(wide, bound) : Math.min(wide, bound);
    }
    return { value: m, ...ends, values };
  }

  /** A metric that is computed from all seeds at once: known with all of them, and without any one. */
  function together(table, kept, n) {
    if (kept.length === n) return table[table.length - 1];
    if (kept.length === n - 1) return table[[...Array(n).keys()].find((k) => !kept.includes(k))];
    return { value: null, low: null, high: null };
  }

  const COMPARE = { at_least: (a, b) => a >= b, at_most: (a, b) => a <= b, above: (a, b) => a > b, below: (a, b) => a < b };

  /** What a condition compares: a metric, or a difference (measured as such, or from end to opposite end). */
  function compared(condition, merged) {
    const one = merged[condition.metric];
    if (condition.difference) return merged[condition.difference];
    if (!condition.other) return one;
    const two = merged[condition.other];
    const bare = [one, two].every((m) => m.low === null && m.high === null);
    if (bare) return { value: one.value - two.value, low: null, high: null };
    const end = (m, name) => (m[name] === null ? m.value : m[name]);
    return { value: one.value - two.value, low: end(one, "low") - end(two, "high"), high: end(one, "high") - end(two, "low") };
  }

  function check(condition, merged, bound) {
    const names = [condition.metric, condition.other, condition.difference].filter(Boolean);
    if (names.some((name) => merged[name].value === null)) return { holds: null, defined: false };
    const values = merged[condition.metric].values;
    if (condition.by_seed && values) {  // in every seed, or not even in the median one
      const sorted = [...values].sort((a, b) => a - b), n = sorted.length;
      const rising = ["at_least", "above"].includes(condition.test);
      const middle = (sorted[Math.floor((n - 1) / 2)] + sorted[Math.floor(n / 2)]) / 2;
      const [worst, half] = [rising ? sorted[0] : sorted[n - 1], middle].map((x) => COMPARE[condition.test](x, bound));
      return { holds: worst ? true : half ? null : false, defined: true, span: { value: middle, low: sorted[0], high: sorted[n - 1] } };
    }
    const span = compared(condition, merged), bare = span.low === null && span.high === null;
    const least = bare ? span.value : span.low === null ? -Infinity : span.low;
    const most = bare ? span.value : span.high === null ? Infinity : span.high;
    let holds;
    if (condition.test === "within") {
      const reach = condition.tolerance * (1 + 1e-9);
      holds = Math.max(Math.abs(least - bound), Math.abs(most - bound)) <= reach ? true
        : Math.max(least - bound, bound - most) > reach ? false : null;
    } else {
      const [first, last] = [least, most].map((end) => COMPARE[condition.test](end, bound));
      holds = first === last ? first : null;
    }
    return { holds, defined: true, span };
  }

  const boundOf = (condition) => (condition.other ? condition.margin || 0 : condition.bound);

  /** The verdict of a case with some seeds and bounds: as Rule.evaluate. */
  function judge(one, kept, bounds, t) {
    if (one.never) return { verdict: one.never, reason: one.because, outcomes: [] };
    if (one.inapplicable) return { verdict: "not tested", reason: one.inapplicable, outcomes: [] };
    const merged = Object.fromEntries(Object.entries(one.metrics).map(([k, m]) =>
      [k, one.pooled[k] ? together(one.pooled[k], kept, one.seeds.length) : merge(m, kept, t)]));
    const outcomes = one.conditions.map((c, i) => check(c, merged, bounds[i]));
    const unlearned = one.gates.some((g) => merged[g.metric].value === null || !(merged[g.metric].value >= g.at_least));
    const short = one.needs.some((n) => merged[n.metric].value === null || !(merged[n.metric].value >= n.at_least));
    const counted = one.conditions.map((c, i) => [c, outcomes[i]]).filter(([c]) => !c.by_construction);
    const undefined_ = !counted.some(([, o]) => o.defined);
    let verdict, reason = "";
    if (unlearned || short || undefined_) {
      verdict = "not tested";
      reason = unlearned ? "the network has not learned it" : short ? "too few cases" : "not defined";
    } else if (one.kind === "value" && one.elsewhere) verdict = "not comparable";
    else {
      const needed = counted.filter(([c]) => c.necessary).map(([, o]) => o.holds);
      const held = counted.filter(([, o]) => o.holds === true).length;
      const possible = counted.filter(([, o]) => o.holds !== false).length;
      if (held >= one.enough && needed.every((h) => h === true)) verdict = "reproduced";
      else if (needed.includes(false) || possible < one.partly_at) verdict = "not reproduced";
      else if (held >= one.partly_at && !needed.includes(null)) verdict = "partly";
      else verdict = "undecided";
      if (verdict === "reproduced" && one.at_most) verdict = one.at_most;
    }
    return { verdict, reason, outcomes, merged };
  }

  const all = (one) => one.seeds.map((_, i) => i);
  const committed = (one) => one.conditions.map(boundOf);

  /** The nearest changes that give another verdict: each bound moved down and up, each seed left out. */
  function flips(one, t) {
    if (one.never || one.inapplicable) return [];
    const base = judge(one, all(one), committed(one), t), found = [];
    one.conditions.forEach((c, i) => {
      if (!base.outcomes[i].defined || c.by_construction) return;
      const { value, low, high } = base.outcomes[i].span, b = boundOf(c), tol = c.tolerance || 0;
      const ends = [value, low, high].filter((x) => x !== null).flatMap((x) => (tol ? [x - tol, x + tol] : [x]));
      const step = 1e-6 * Math.max(1e-6, ...ends.map(Math.abs), Math.abs(b));
      for (const [side, order] of [["below", (x, y) => y - x], ["above", (x, y) => x - y]]) {
        const candidates = ends.filter((x) => (side === "below" ? x <= b : x >= b)).sort(order);
        for (const x of candidates) {
          const at = side === "below" ? x - step : x + step, bounds = committed(one);
          bounds[i] = at;
          const { verdict } = judge(one, all(one), bounds, t);
          if (verdict !== base.verdict) { found.push({ condition: i, side, at: x, bound: at, verdict }); break; }
        }
      }
    });
    if (one.seeds.length > 1) one.seeds.forEach((seed, i) => {
      const { verdict } = judge(one, all(one).filter((k) => k !== i), committed(one), t);
      if (verdict !== base.verdict) found.push({ seed, verdict });
    });
    return found;
  }

  window.benchRule = { merge, judge, flips, committed, all };
  if (typeof document === "undefined" || !window.BENCH) return;

  // ---- the page ------------------------------------------------------------------------------------------------
  const { cases, t, words } = window.BENCH;
  const VERDICTS = ["reproduced", "partly", "undecided", "not reproduced", "not comparable", "not tested"];
  const say = (word) => words[word] || word;
  const badge = (verdict) => words[`verdict ${verdict}`];
  const SVG = "http://www.w3.org/2000/svg";
  const STORE = "predictions";
  const load = () => { try { return JSON.parse(localStorage.getItem(STORE)) || {}; } catch { return {}; } };
  const save = (all_) => { try { localStorage.setItem(STORE, JSON.stringify(all_)); } catch { /* private window */ } };

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "html") node.innerHTML = value;
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }
  function draw(tag, attributes) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  }
  const digits = (x) => (x === null ? say("not defined")
    : (Math.abs(x) >= 1e4 || (x && Math.abs(x) < 1e-3) ? x.toExponential(2) : String(Number(x.toPrecision(4)))).replace("-", "−"));
  const short = (name) => name.split(".").slice(2).join(".") || name;
  const SIGN = { at_least: "≥", at_most: "≤", above: ">", below: "<", within: "=" };

  /** One condition: seeds as points, interval as a bar, the bound as a line that a range input moves. */
  function conditionView(one, i, state, changed) {
    const c = one.conditions[i], name = short(c.metric) + (c.other ? ` − ${short(c.other)}` : "");
    const own = c.difference || c.metric, metric = one.metrics[own];
    const two = c.other && !c.difference ? one.metrics[c.other] : null;
    const points = () => metric.values.map((v, k) => (v === null || (two && two.values[k] === null) ? null : two ? v - two.values[k] : v));
    const base = judge(one, all(one), committed(one), t).outcomes[i];
    const b0 = boundOf(c), tol = c.tolerance || 0;
    const seen = [b0 - tol, b0 + tol, ...points(), ...(base.defined ? [base.span.low, base.span.high] : [])].filter((x) => x !== null);
    let [lo, hi] = [Math.min(...seen), Math.max(...seen)];
    const pad = (hi - lo || Math.abs(hi) || 1) * 0.15; lo -= pad; hi += pad;
    const H = 46, at = (v) => 1.5 + ((v - lo) / (hi - lo)) * 97, x = (v) => `${at(v)}%`;
    const svg = draw("svg", { class: "bench-plot", "aria-hidden": "true" });
    const id = `bound-${one.key}-${i}`.replace(/[^\w-]/g, "_");
    const input = make("input", { type: "range", id, min: lo, max: hi, step: (hi - lo) / 1000, value: b0,
      oninput: () => { state.bounds[i] = Number(input.value); changed(); } });
    const text = make("output", { for: id });
    const told = make("span", { class: "bench-state" });
    const label = make("label", { for: id }, `${name} ${SIGN[c.test]} `, text);
    const node = make("div", { class: "bench-condition" },
      make("p", { class: "bench-head" }, label, told), svg, input);
    function update(result) {
      const outcome = result.outcomes[i], bound = state.bounds[i];
      svg.replaceChildren();
      if (tol) svg.append(draw("rect", { x: x(bound - tol), width: `${at(bound + tol) - at(bound - tol)}%`, y: 4, height: H - 8, class: "bench-tolerance" }));
      svg.append(draw("line", { x1: "1.5%", x2: "98.5%", y1: H / 2, y2: H / 2, class: "bench-axis" }));
      if (outcome.defined && outcome.span.low !== null)
        svg.append(draw("line", { x1: x(outcome.span.low), x2: x(outcome.span.high), y1: H / 2, y2: H / 2, class: "bench-interval" }));
      points().forEach((v, k) => v !== null && svg.append(draw("circle", { cx: x(v), cy: H / 2 - 9 + 18 * (k % 2), r: 4,
        class: state.kept.includes(k) ? "bench-seed" : "bench-seed bench-out" })));
      if (outcome.defined) svg.append(draw("line", { x1: x(outcome.span.value), x2: x(outcome.span.value), y1: H / 2 - 10, y2: H / 2 + 10, class: "bench-mean" }));
      svg.append(draw("line", { x1: x(bound), x2: x(bound), y1: 2, y2: H - 2, class: "bench-bound" }));
      text.textContent = digits(bound) + (tol ? ` ± ${digits(tol)}` : "");
      const word = outcome.holds === null ? "open" : outcome.holds ? "holds" : "fails";
      const span = outcome.defined ? `${digits(outcome.span.value)}${outcome.span.low === null ? "" : ` [${digits(outcome.span.low)}, ${digits(outcome.span.high)}]`}` : say("not defined");
      told.replaceChildren(`${span}: `, make("b", { class: `state-${word}` }, say(word)),
        c.by_seed ? ` (${say("seed by seed")})` : c.necessary ? ` (${say("necessary")})` : c.by_construction ? ` (${say("by construction")}: ${say("does not count")})` : "");
      input.setAttribute("aria-valuetext", `${say("bound")} ${text.textContent}; ${told.textContent}`);
      input.value = bound;
    }
    return { node, update };
  }

  /** Everything behind the prediction: conditions, seeds, verdict now, what would flip it. */
  function evidence(one) {
    const state = { kept: all(one), bounds: committed(one) };
    const now = make("p", { class: "bench-now", "aria-live": "polite" });
    const views = one.conditions.map((_, i) => conditionView(one, i, state, update));
    const boxes = one.seeds.map((seed, k) => {
      const box = make("input", { type: "checkbox", onchange: () => {
        state.kept = boxes.map((b, j) => (b.checked ? j : -1)).filter((j) => j >= 0);
        if (!state.kept.length) { box.checked = true; state.kept = [k]; }
        update();
      } });
      box.checked = true;
      return box;
    });
    function update() {
      const result = judge(one, state.kept, state.bounds, t);
      views.forEach((view) => view.update(result));
      now.innerHTML = `${say("now")}: ${badge(result.verdict)}${result.reason ? ` <span>(${say(result.reason)})</span>` : ""}`
        + ` · ${say("committed")}: ${badge(one.verdict)}`;
    }
    const reset = make("button", { type: "button", class: "bench-button", onclick: () => {
      state.kept = all(one); state.bounds = committed(one); boxes.forEach((b) => { b.checked = true; }); update();
    } }, say("reset"));
    const found = flips(one, t);
    const list = found.map((f) => make("li", { html: (f.seed !== undefined ? `${say("without seed")} ${f.seed}`
      : `<code>${short(one.conditions[f.condition].metric)}</code>: ${say(`if the bound were ${f.side}`)} ${digits(f.at)}`)
      + `: ${badge(f.verdict)}` }));
    const seedsBox = make("fieldset", { class: "bench-seeds" }, make("legend", {}, say("seeds")),
      ...one.seeds.map((seed, k) => make("label", {}, boxes[k], ` ${seed}`)));
    const node = make("div", { class: "bench-evidence" }, now);
    if (one.never || one.inapplicable) node.append(make("p", {}, `${say("this claim is not judged")}: ${one.because || one.inapplicable}`));
    else node.append(...views.map((v) => v.node), make("div", { class: "bench-row" }, seedsBox, reset),
      make("p", { class: "bench-flip" }, make("b", {}, say("what would flip it"))),
      make("ul", {}, ...(list.length ? list : [make("li", {}, say("nothing within reach"))])));
    update();
    return node;
  }

  function card(one) {
    const place = document.querySelector(`[data-bench="${one.key}"]`);
    if (!place) return;
    const given = load();
    function show(predicted) {
      const line = predicted ? [make("p", { class: "bench-told", html:
        `${say("your prediction")}: ${badge(predicted)} · ${say("it was")} ${badge(one.verdict)}: <b>${say(predicted === one.verdict ? "right" : "not so")}</b>` })] : [];
      place.replaceChildren(...line, evidence(one));
      place.dataset.revealed = "true";
    }
    function ask() {
      const name = `predict-${one.key}`.replace(/[^\w-]/g, "_");
      const radios = VERDICTS.map((v) => make("label", {}, make("input", { type: "radio", name, value: v }), make("span", { html: badge(v) })));
      const form = make("form", { class: "bench-ask", onsubmit: (event) => {
        event.preventDefault();
        const chosen = form.querySelector("input:checked")?.value || null;
        if (chosen) save({ ...load(), [one.key]: chosen });
        show(chosen); count();
        place.tabIndex = -1; place.focus();
      } }, make("fieldset", {}, make("legend", {}, say("predict first")), ...radios),
      make("button", { type: "submit", class: "bench-button" }, say("reveal")));
      place.replaceChildren(form);
      place.dataset.revealed = "false";
    }
    if (given[one.key]) show(given[one.key]); else ask();
  }

  const tally = document.getElementById("bench-tally");
  function count() {
    if (!tally) return;
    const given = load(), known = cases.filter((one) => given[one.key]);
    const right = known.filter((one) => given[one.key] === one.verdict).length;
    tally.replaceChildren(`${say("claims predicted")}: ${known.length}; ${say("right")}: ${right} `, make("button",
      { type: "button", class: "bench-button", onclick: () => { save({}); cases.forEach(card); count(); } }, say("forget my predictions")));
  }

  document.querySelectorAll("details.bench-claim").forEach((details) => {
    const fill = () => { if (details.open && !details.dataset.filled) { details.dataset.filled = "true";
      const keys = [...details.querySelectorAll("[data-bench]")].map((n) => n.dataset.bench);
      cases.filter((one) => keys.includes(one.key)).forEach(card); } };
    details.addEventListener("toggle", fill);
    fill();
  });
  const wanted = () => { const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target?.matches("details.bench-claim")) target.open = true; };
  window.addEventListener("hashchange", wanted);
  wanted();
  count();
})();
