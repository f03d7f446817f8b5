// The hits: arrow keys, the selection, the same image in the other store, and images that cannot be shown.

const cards = (place) => [...place.querySelectorAll(".hit")];
const groupOf = (card) => card.closest(".column, .gallery");

const PASSING = [0, 429, 503]; // no answer, or one that says to come back

export function watchGrid(live) {
  performance.setResourceTimingBufferSize(10_000);
  addEventListener("placed", () => {
    for (const group of document.querySelectorAll(".column, .gallery")) stopAt(cards(group)[0]);
    for (const image of document.querySelectorAll(".hit img")) look(image);
    count();
  });
  document.addEventListener("load", (event) => look(event.target), true);
  addEventListener("error", (event) => look(event.target), true);
  addEventListener("change", (event) => {
    if (!event.target.matches(".pick input")) return;
    for (const twin of alike(event.target)) twin.checked = event.target.checked;
    live.textContent = `${count()} selected`;
  });
  addEventListener("reset", () => setTimeout(count)); // the boxes change after the event
  for (const name of ["focusin", "pointerover"]) addEventListener(name, (event) => markTwins(event.target.closest?.(".hit")));
  addEventListener("focusin", (event) => {
    const card = event.target.closest?.(".hit");
    if (card) stopAt(card);
  });
  addEventListener("keydown", (event) => {
    const card = event.target.closest?.(".hit");
    const next = card && !event.ctrlKey && !event.metaKey && !event.altKey && neighbour(card, event.key);
    if (!next) return;
    event.preventDefault();
    next.querySelector(".open").focus();
  });
}

/** One card of each group is in the tab order; arrow keys lead to the others. */
function stopAt(card) {
  if (!card) return;
  for (const one of cards(groupOf(card))) {
    for (const control of one.querySelectorAll("a, input")) control.tabIndex = one === card ? 0 : -1;
  }
}

function neighbour(card, key) {
  const all = cards(groupOf(card)), place = all.indexOf(card);
  const at = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: all.length - 1 }[key];
  if (at !== undefined) return all[at];
  const way = { ArrowDown: 1, ArrowUp: -1 }[key];
  if (!way) return undefined;
  const { top, left, width } = card.getBoundingClientRect();
  const beyond = all.map((one) => ({ one, box: one.getBoundingClientRect() })).filter(({ box }) => way * (box.top - top) > 1);
  const row = Math.min(...beyond.map(({ box }) => way * box.top));
  const distance = ({ box }) => Math.abs(box.left + box.width / 2 - left - width / 2);
  const nearest = beyond.filter(({ box }) => way * box.top < row + 1).sort((a, b) => distance(a) - distance(b));
  return nearest[0]?.one;
}

const alike = (box) => [...document.querySelectorAll(".pick input")].filter((one) => one.name === box.name && one.value === box.value);

function count() {
  const chosen = new Set([...document.querySelectorAll(".pick :checked")].map((box) => box.name + box.value));
  const place = document.querySelector("[data-count]");
  if (place) place.textContent = `${chosen.size} selected`;
  return chosen.size;
}

function markTwins(card) {
  for (const twin of document.querySelectorAll(".twin")) twin.classList.remove("twin");
  if (!card?.dataset.key) return;
  for (const one of cards(document)) if (one !== card && one.dataset.key === card.dataset.key) one.classList.add("twin");
}

const statusOf = (image) => performance.getEntriesByName(image.src).at(-1)?.responseStatus ?? 0;

/** Ask once more for a thumbnail that a moment ago the server could not send. Returns whether it will. */
function again(image) {
  if (image.dataset.again || !PASSING.includes(statusOf(image))) return false;
  image.dataset.again = "1";
  setTimeout(() => (image.src = image.src), 1000 + 1000 * Math.random()); // not all at once
  return true;
}

/** Note that an image cannot be shown. For most, the server sends a picture that says so, which not everybody can see. */
function look(image) {
  if (!image.matches?.(".hit img") || !image.complete || image.nextSibling) return;
  const isPicture = image.naturalWidth > 0;
  if (isPicture ? statusOf(image) < 400 : again(image)) return;
  image.closest(".hit").classList.toggle("broken", !isPicture);
  const text = document.createElement("span");
  text.className = "why";
  text.textContent = "This image cannot be shown";
  image.after(text);
}
