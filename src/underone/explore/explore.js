"use strict";

// The page asks for jobs and shows the messages that come back: see explore/jobs.py.
const offer = JSON.parse(document.getElementById("offer").textContent);
const LADDER = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1000];
const OPTIONS = ["sampler", "grid", "form"];
const KEPT = ["model", "sampler", "sampler-options", "steps", "grid", "grid-options", "guidance", "form", "form-options", "interval", "threshold"];
const SHARED = ["seed", "labels", "count"];
// The steps that the right side begins with, to compare with the default.
const FEW_STEPS = 5;
const common = document.getElementById("common").elements;
const loupe = document.getElementById("loupe");

const fill = (select, names, titles = names) => {
  const before = select.value;
  select.replaceChildren(...names.map((name, i) => new Option(titles[i], name)));
  if (names.includes(before)) select.value = before;
};
const set = (field, value) => {
  if (field.tagName !== "SELECT" || [...field.options].some((option) => option.value === value)) field.value = value;
};
// null where a field holds no number: the program says which field it is.
const numberIn = (field) => (field.value === "" ? null : Number(field.value));
const number = (value, digits) => Number(value).toLocaleString("en", { maximumFractionDigits: digits });
const duration = (seconds) => (seconds < 90 ? `${number(seconds, seconds < 10 ? 1 : 0)} s` : `${number(seconds / 60, 1)} min`);

// The messages that the program answers with, until it ends or is stopped.
async function* answers(path, request, signal) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(request),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    text += value ?? "";
    const lines = text.split("\n");
    text = done ? "" : lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
    if (done) return;
  }
}

class Panel {
  constructor(element) {
    this.element = element;
    this.side = element.dataset.side;
    const [steps, weight] = element.querySelectorAll("input[type=range]");
    this.sliders = { steps, guidance: weight };
    const part = (name) => element.querySelector(`.${name}`);
    this.picture = element.querySelector(".sheet img");
    this.progress = element.querySelector("progress");
    [this.mark, this.way, this.drawn, this.known, this.measured, this.command] = ["mark", "way", "drawn", "known", "measured", "command"].map(part);
    [this.stopButton, this.measureButton, this.copyButton] = ["stop", "measure", "copy"].map(part);
    this.jobs = new Map();
    fill(this.at("model"), Object.keys(offer.models));
    fill(this.at("grid"), offer.grids);
    fill(this.at("form"), offer.forms);
    fill(this.at("threshold"), offer.thresholds);
    part("model").hidden = Object.keys(offer.models).length < 2;
    this.listen();
  }

  at(name) {
    return this.element.querySelector(`[name="${name}"]`);
  }

  get model() {
    return offer.models[this.at("model").value];
  }

  listen() {
    this.sliders.steps.addEventListener("input", () => {
      this.at("steps").value = this.ladder[this.sliders.steps.value];
      this.follow();
    });
    this.sliders.guidance.addEventListener("input", () => (this.at("guidance").value = this.sliders.guidance.value));
    this.element.addEventListener("change", ({ target }) => this.changed(target.name));
    this.stopButton.addEventListener("click", () => this.stop());
    this.measureButton.addEventListener("click", () => this.measure());
    this.copyButton.addEventListener("click", () => this.copy());
    const sheet = this.element.querySelector(".sheet");
    for (const kind of ["pointermove", "pointerdown"]) sheet.addEventListener(kind, (event) => choose(this.sampleAt(event)));
    sheet.addEventListener("pointerleave", ({ pointerType }) => pointerType === "touch" || sheet.matches(":focus") || choose(null));
    sheet.addEventListener("keydown", (event) => this.walk(event));
    sheet.addEventListener("blur", () => choose(null));
  }

  changed(name) {
    if (OPTIONS.includes(name)) this.at(`${name}-options`).value = "";
    const before = common.labels.value;
    if (name === "model") {
      this.adopt();
      fillClasses();
    }
    this.follow();
    if (common.labels.value !== before) return drawBoth();
    keepState();
    return this.draw();
  }

  // Offer what the model has. Without the sampler chosen before, its default setting is restored.
  adopt() {
    const { samplers, usual, most_steps: most, guided, reference } = this.model;
    const had = this.at("sampler").value;
    fill(this.at("sampler"), samplers);
    if (!samplers.includes(had)) this.reset(usual);
    this.ladder = LADDER.filter((steps) => steps < most).concat(most);
    this.sliders.steps.max = this.ladder.length - 1;
    this.at("steps").max = most;
    if (Number(this.at("steps").value) > most) this.at("steps").value = most;
    for (const label of this.element.querySelectorAll(".weight")) label.hidden = !guided;
    for (const label of this.element.querySelectorAll(".stepped")) label.hidden = most === 1;
    this.measureButton.disabled = reference === null;
    this.measureButton.title = reference === null ? "Start underone explore with --reference" : `Against ${reference}`;
  }

  reset(setting) {
    for (const name of OPTIONS) this.at(`${name}-options`).value = "";
    for (const [name, value] of Object.entries(setting)) this.at(name).value = value ?? "";
  }

  // Sliders follow the numbers; a grid is offered for samplers that have none of their own.
  follow() {
    const steps = Number(this.at("steps").value);
    const slider = this.sliders.steps;
    slider.value = this.ladder.reduce((best, value, i) => (Math.abs(value - steps) < Math.abs(this.ladder[best] - steps) ? i : best), 0);
    slider.setAttribute("aria-valuetext", steps);
    this.sliders.guidance.value = this.at("guidance").value;
    const own = offer.samplers_with_own_grid.includes(this.at("sampler").value);
    for (const label of this.element.querySelectorAll(".placed")) label.hidden = own;
  }

  // What is chosen; defaults for what is hidden, since the model does not have it.
  get request() {
    const shown = (name) => !this.at(name).closest("[hidden]");
    const chosen = (name) => (shown(name) ? this.at(name).value : offer.usual[name]);
    const counted = (name, otherwise) => (shown(name) ? numberIn(this.at(name)) : otherwise);
    const withOptions = (name) => {
      const options = shown(`${name}-options`) ? this.at(`${name}-options`).value.trim() : "";
      return options ? `${chosen(name)},${options}` : chosen(name);
    };
    return {
      model: this.at("model").value,
      sampler: withOptions("sampler"),
      steps: counted("steps", this.model.usual.steps),
      grid: withOptions("grid"),
      guidance: counted("guidance", offer.usual.guidance),
      form: withOptions("form"),
      interval: shown("interval") ? this.at("interval").value.trim() : "",
      threshold: chosen("threshold"),
      seed: numberIn(common.seed),
      labels: this.model.classes.length ? common.labels.value : "balanced",
      count: numberIn(common.count),
    };
  }

  say(where, text, wrong = false) {
    if (where.textContent !== text) where.textContent = text;
    where.classList.toggle("wrong", wrong);
  }

  stop() {
    for (const job of this.jobs.values()) job.abort();
  }

  // One job of each kind, the one asked for last. `hear` gets every message but errors, and
  // returns whether it was the last.
  async run(path, request, where, hear) {
    this.jobs.get(path)?.abort();
    const job = new AbortController();
    this.jobs.set(path, job);
    this.stopButton.disabled = false;
    this.say(where, "waiting for its turn …");
    let ended = false;
    try {
      for await (const message of answers(path, request, job.signal)) {
        if (job.signal.aborted) break;
        if (message.error) this.say(where, message.error, true);
        ended = message.error ? true : hear(message);
      }
      if (!ended && !job.signal.aborted) this.say(where, "The program has ended.", true);
    } catch (error) {
      if (!job.signal.aborted) this.say(where, `The program does not answer: is it running? (${error.message})`, true);
    }
    if (this.jobs.get(path) !== job) return;
    if (job.signal.aborted) this.say(where, "stopped");
    this.jobs.delete(path);
    this.stopButton.disabled = this.jobs.size === 0;
  }

  async draw() {
    const request = this.request;
    let begun = 0;
    this.jobs.get("measure")?.abort();
    this.jobs.delete("measure");
    this.say(this.known, "");
    this.say(this.measured, "");
    this.tellCommand("");
    this.progress.value = 0;
    await this.run("draw", request, this.drawn, (message) => {
      if (message.begun) {
        begun = performance.now();
        this.say(this.drawn, "drawing …");
      }
      if (message.sheet) this.lay(message, request);
      if (message.picture) {
        this.show(message, request);
        const { step, steps } = message;
        this.progress.value = step / steps;
        this.say(this.way, `step ${step} of ${steps}, ${duration(((performance.now() - begun) / 1000 / step) * (steps - step))} left`);
      }
      if (message.command) this.finish(message, request);
      return Boolean(message.command);
    });
    if (!this.jobs.has("draw")) this.say(this.way, "");
  }

  // The layout and the classes of the samples, and figures known of their setting. A column is a
  // class where all classes take turns.
  lay({ sheet, labels, known }, request) {
    this.say(this.known, known.join("\n"));
    Object.assign(this, { sheet, labels, count: request.count });
    const { classes } = this.model;
    const turns = labels !== null && request.labels === "balanced" && classes.length === sheet.columns;
    const header = this.element.querySelector(".classes");
    header.style.gridTemplateColumns = `repeat(${sheet.columns}, 1fr)`;
    const title = (name) => Object.assign(document.createElement("span"), { textContent: name, title: name });
    header.replaceChildren(...(turns ? classes : []).map(title));
  }

  show({ picture, step, steps }, request) {
    this.picture.src = picture;
    this.picture.alt = `${request.count} samples of ${request.model}: ${request.sampler}, step ${step} of ${steps}, w = ${request.guidance}`;
    this.picture.hidden = false;
    this.picture.onload = enlarge;
    this.markChosen();
  }

  finish({ seconds, evaluations, command }, request) {
    const each = Object.entries(evaluations).map(([name, count]) => (name === "model" ? number(count, 1) : `${number(count, 1)} of ${name}`));
    this.say(this.drawn, `${each.join(" + ")} evaluations an image, ${number((1000 * seconds) / request.count, 1)} ms an image`);
    this.tellCommand(command);
  }

  measure() {
    return this.run("measure", this.request, this.measured, (message) => {
      if (message.fid !== undefined) this.tell(message);
      else if (message.of) this.say(this.measured, `${number(message.done)} of ${number(message.of)} samples, ${duration(message.seconds_left)} left`);
      return message.fid !== undefined;
    });
  }

  tell({ fid, error, floor, of, extractor, rank_deficient: few }) {
    const floorWords = floor === null ? "" : `; real images ${floor}`;
    const fewWords = few ? "; too few samples for the dimensions of these features" : "";
    this.say(this.measured, `FID ${fid}${error === null ? "" : ` ± ${error}`} of ${number(of)} samples, by ${extractor}${floorWords}${fewWords}`);
  }

  tellCommand(command) {
    this.command.textContent = command;
    this.copyButton.disabled = command === "";
  }

  // A page from another machine may have no clipboard: the command is selected in any case.
  async copy() {
    getSelection().selectAllChildren(this.command);
    if (!navigator.clipboard) return;
    await navigator.clipboard.writeText(this.command.textContent);
    this.copyButton.textContent = "Copied";
    setTimeout(() => (this.copyButton.textContent = "Copy the command"), 1500);
  }

  // Where sample i is in the picture, in pixels.
  place(i) {
    const { columns, width, height, gap } = this.sheet;
    return { x: gap + (i % columns) * (width + gap), y: gap + Math.floor(i / columns) * (height + gap), width, height };
  }

  sampleAt(event) {
    if (!this.sheet) return null;
    const box = this.picture.getBoundingClientRect();
    const { columns, width, height, gap } = this.sheet;
    const scale = this.picture.naturalWidth / box.width;
    const column = Math.floor(((event.clientX - box.left) * scale - gap / 2) / (width + gap));
    const row = Math.floor(((event.clientY - box.top) * scale - gap / 2) / (height + gap));
    const i = row * columns + column;
    return column >= 0 && column < columns && i >= 0 && i < this.count ? i : null;
  }

  walk(event) {
    if (!this.sheet) return;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.sheet.columns, ArrowDown: this.sheet.columns }[event.key];
    if (event.key === "Escape") choose(null);
    if (by === undefined) return;
    event.preventDefault();
    const to = chosen === null ? 0 : chosen + by;
    if (to >= 0 && to < this.count) choose(to);
  }

  get hasChosen() {
    return chosen !== null && Boolean(this.sheet) && chosen < this.count;
  }

  markChosen() {
    this.mark.hidden = !this.hasChosen;
    if (this.mark.hidden) return;
    const { x, y, width, height } = this.place(chosen);
    const { columns, gap } = this.sheet;
    const whole = { x: gap + columns * (width + gap), y: gap + Math.ceil(this.count / columns) * (height + gap) };
    const percent = (part, all) => `${(100 * part) / all}%`;
    Object.assign(this.mark.style, { left: percent(x, whole.x), top: percent(y, whole.y), width: percent(width, whole.x), height: percent(height, whole.y) });
  }

  enlarge(canvas) {
    if (!this.hasChosen || !this.picture.complete) return;
    const { x, y, width, height } = this.place(chosen);
    Object.assign(canvas, { width, height });
    canvas.getContext("2d").drawImage(this.picture, x, y, width, height, 0, 0, width, height);
  }
}

// The sample chosen by pointer or keyboard, marked and enlarged on both sides.
let chosen = null;
const panels = [...document.querySelectorAll(".panel")].map((element) => new Panel(element));

function choose(i) {
  chosen = i;
  for (const panel of panels) panel.markChosen();
  enlarge();
}

function enlarge() {
  loupe.hidden = chosen === null;
  if (chosen === null) return;
  for (const panel of panels) panel.enlarge(loupe.querySelector(`canvas[data-side=${panel.side}]`));
  const { labels, model } = panels.find((panel) => panel.labels) ?? panels[0];
  const of = labels ? `, ${model.classes[labels[chosen]]}` : "";
  panels[0].say(loupe.querySelector("p"), `Sample ${chosen} of seed ${common.seed.value}${of}`);
}

function fillClasses() {
  const { classes } = panels.map((panel) => panel.model).find((model) => model.classes.length) ?? { classes: [] };
  fill(common.labels, ["balanced", "random", ...classes.map((_, i) => String(i))], ["all in turn", "at random", ...classes]);
  common.labels.disabled = !classes.length;
}

function drawBoth() {
  keepState();
  for (const panel of panels) panel.draw();
}

// The address holds all choices, so that it can be kept and sent.
function keepState() {
  const state = new URLSearchParams();
  for (const name of SHARED) state.set(name, common[name].value);
  for (const panel of panels) for (const name of KEPT) if (panel.at(name).value) state.set(`${panel.side}-${name}`, panel.at(name).value);
  history.replaceState(null, "", `#${state}`);
}

// Restore the choices in the address; defaults for those that are missing or unknown.
function begin() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const panel of panels) {
    const wanted = (name) => state.get(`${panel.side}-${name}`);
    panel.at("model").selectedIndex = 0;
    set(panel.at("model"), wanted("model"));
    panel.adopt();
    const { usual, most_steps: most } = panel.model;
    panel.reset(usual);
    const few = panel.side === "right" && usual.sampler === offer.usual.sampler && most >= FEW_STEPS;
    if (few && wanted("steps") === null) panel.at("steps").value = FEW_STEPS;
    for (const name of KEPT.slice(1)) if (wanted(name) !== null) set(panel.at(name), wanted(name));
    panel.follow();
  }
  fillClasses();
  for (const name of SHARED) if (state.has(name)) set(common[name], state.get(name));
  drawBoth();
}

addEventListener("hashchange", begin);
document.getElementById("common").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("common").addEventListener("change", drawBoth);
document.getElementById("next").addEventListener("click", () => {
  common.seed.value = Number(common.seed.value) + 1;
  drawBoth();
});
begin();
