"use strict";

// All pictures and captions are in the page already: this only shows them in other places.
const figureOf = (cell) => document.getElementById(`cell-${cell}`);

// A card beside the hovered or focused point of a chart. Escape closes it.
const card = document.createElement("div");
card.className = "card";
card.id = "card";
card.setAttribute("role", "tooltip");
card.hidden = true;
document.body.append(card);
let closing = 0;
let described = null;

function openCard(link) {
  const figure = document.getElementById(link.getAttribute("href").slice(1));
  if (!figure) return;
  clearTimeout(closing);
  described?.removeAttribute("aria-describedby");
  described = link;
  card.replaceChildren(...figure.cloneNode(true).childNodes);
  card.hidden = false;
  link.setAttribute("aria-describedby", "card");
  const point = link.getBoundingClientRect();
  const { width, height } = card.getBoundingClientRect();
  const page = document.documentElement;
  const left = point.right + 12 + width > page.clientWidth ? point.left - 12 - width : point.right + 12;
  const top = Math.min(point.top - 20, page.clientHeight - height - 8);
  card.style.left = `${Math.max(8, Math.min(left, page.clientWidth - width - 8)) + scrollX}px`;
  card.style.top = `${Math.max(8, top) + scrollY}px`;
}

function closeCard() {
  card.hidden = true;
  described?.removeAttribute("aria-describedby");
  described = null;
}

// Leave time to move from the point to the card, so that it can be read with a magnifier.
function closeSoon() {
  clearTimeout(closing);
  closing = setTimeout(closeCard, 150);
}

for (const link of document.querySelectorAll('.chart a[href^="#cell-"]')) {
  link.addEventListener("pointerenter", () => openCard(link));
  link.addEventListener("focus", () => openCard(link));
  link.addEventListener("pointerleave", closeSoon);
  link.addEventListener("blur", closeSoon);
}
card.addEventListener("pointerenter", () => clearTimeout(closing));
card.addEventListener("pointerleave", closeSoon);
addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeCard();
});

// The gallery is open in print and without this script.
const gallery = document.getElementById("gallery");
function openAtTarget() {
  if (!location.hash.startsWith("#cell-")) return;
  gallery.open = true;
  closeCard();
  document.getElementById(location.hash.slice(1))?.scrollIntoView({ block: "center" });
}
if (gallery) {
  gallery.open = false;
  openAtTarget();
}

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

// Two panels: a family of settings, and sliders over the steps and weights that it has.
const families = JSON.parse(document.getElementById("families").textContent);
const distinct = (values) => [...new Set(values)].sort((a, b) => a - b);
const nearest = (values, wanted) =>
  values.reduce((best, value, i) => (Math.abs(value - wanted) < Math.abs(values[best] - wanted) ? i : best), 0);
const signed = (value) => String(value).replace("-", "−");

class Panel {
  constructor(element) {
    this.side = element.dataset.side;
    this.select = element.querySelector("select");
    this.sliders = { steps: element.querySelector(".steps"), w: element.querySelector(".w") };
    this.picture = element.querySelector("img");
    this.says = element.querySelector("[role=status]");
    families.forEach((family, i) => this.select.add(new Option(family.title, i)));
    element.hidden = false;
    this.open(element.dataset.cell);
    element.addEventListener("input", () => {
      this.read();
      keepState();
    });
  }

  open(cell) {
    const index = families.findIndex((family) => family.cells.some((each) => each.cell === cell));
    if (index < 0) return;
    this.show(families[index], families[index].cells.find((each) => each.cell === cell));
  }

  // The cell nearest to what is wanted: first in steps, then in w among those steps.
  show(family, wanted) {
    const steps = distinct(family.cells.map((each) => each.steps));
    const step = steps[nearest(steps, wanted.steps)];
    const there = family.cells.filter((each) => each.steps === step);
    const weights = distinct(there.map((each) => each.w));
    const w = weights[nearest(weights, wanted.w)];
    this.family = family;
    this.cell = there.find((each) => each.w === w);
    this.select.value = families.indexOf(family);
    this.set("steps", steps, step);
    this.set("w", weights, w);
    const figure = figureOf(this.cell.cell);
    this.picture.src = figure.querySelector("img").src;
    this.picture.alt = figure.querySelector("img").alt;
    if (this.says.textContent !== figure.dataset.says) this.says.textContent = figure.dataset.says;
  }

  set(name, values, value) {
    const slider = this.sliders[name];
    slider.values = values;
    slider.max = values.length - 1;
    slider.value = values.indexOf(value);
    slider.disabled = values.length < 2;
    slider.setAttribute("aria-valuetext", signed(value));
    slider.nextElementSibling.value = signed(value);
  }

  read() {
    const { steps, w } = this.sliders;
    this.show(families[this.select.value], { steps: steps.values[steps.value], w: w.values[w.value] });
  }

  get state() {
    return [["sampler", this.family.title], ["steps", this.cell.steps], ["w", this.cell.w]];
  }

  // #left-sampler=ddim&left-steps=10&left-w=1, or #steps=10 for both.
  restore(state) {
    const wanted = (name) => state.get(`${this.side}-${name}`) ?? state.get(name);
    const number = (name, otherwise) => Number(wanted(name) ?? otherwise);
    const family = families.find((each) => each.title === wanted("sampler")) ?? this.family;
    this.show(family, { steps: number("steps", this.cell.steps), w: number("w", this.cell.w) });
  }
}

const panels = [...document.querySelectorAll(".panel")].map((element) => new Panel(element));

function keepState() {
  const state = new URLSearchParams();
  for (const panel of panels) {
    for (const [name, value] of panel.state) state.set(`${panel.side}-${name}`, value);
  }
  history.replaceState(null, "", `#${state}`);
}

function restoreState() {
  openAtTarget();
  if (!location.hash.includes("=")) return;
  const state = new URLSearchParams(location.hash.slice(1));
  for (const panel of panels) panel.restore(state);
}
restoreState();
addEventListener("hashchange", restoreState);
