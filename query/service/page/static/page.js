// Searches without reloading the page. The server renders; this fetches the results and puts them in place.
// Without JavaScript, the same forms and links do the same.

import { watchGrid } from "./grid.js";
import { watchImages } from "./images.js";
import { watchViewer } from "./viewer.js";

const IMAGE_STAYS = "#options, .paging, .none"; // links in there ask for the image that was sent, too
const text = document.querySelector("#text");
const live = document.querySelector("#live");
const sent = []; // images, which no address can hold; the history has their numbers
let current; // the request under way
let shown; // the search that was asked for last

const results = () => document.querySelector("#results");
const imageOfNow = () => sent[history.state?.image];
const searchOfNow = () => `${history.state?.image} ${location.search}`;

/** Ask for what an address names, and an image, and show it. `isBack`: the browser has changed the address already. */
async function go(address, image, isBack = false) {
  current?.abort();
  const mine = (current = new AbortController());
  results().ariaBusy = "true";
  text.dataset.asked = text.value;
  if (!isBack) {
    history.replaceState({ ...history.state, scroll: scrollY }, "");
    history.pushState({ image: image ? sent.push(image) - 1 : undefined }, "", address);
  }
  shown = searchOfNow();
  try {
    const response = await ask(new URL(address, location), image, mine.signal);
    if (response.headers.get("Content-Type")?.startsWith("text/html")) place(await response.text());
    else if (response.status === 401) location.reload(); // the server shows its login form
    else placeProblem(response, await response.json());
  } catch (error) {
    if (mine.signal.aborted) return;
    placeProblem();
  }
  results().ariaBusy = null;
  scrollTo(0, isBack ? (history.state?.scroll ?? 0) : 0);
}

function ask(url, image, signal) {
  if (!image) {
    url.searchParams.set("fragment", "1");
    return fetch(url, { signal });
  }
  const body = new FormData();
  for (const [name, value] of url.searchParams) body.append(name, value);
  body.append("image", image);
  return fetch("?fragment=1", { method: "POST", body, signal });
}

function place(html) {
  const found = new DOMParser().parseFromString(html, "text/html");
  const had = document.activeElement;
  const open = [...document.querySelectorAll("#options details[open]")].map((one) => one.id);
  for (const id of ["options", "results"]) document.getElementById(id).replaceWith(found.getElementById(id));
  for (const id of open) document.getElementById(id).open = true;
  const asked = new URLSearchParams(location.search).get("text") ?? "";
  if (had !== text || text.dataset.asked === text.value) text.value = asked; // what is typed meanwhile stays
  document.title = results().dataset.title;
  showImage();
  announce();
  if (!had.isConnected) focusAgain(had);
}

function focusAgain(had) {
  const same = had.name && document.querySelector(`#options [name="${had.name}"]:not([type="hidden"])`);
  const place = same || (had.href && document.querySelector(`#options a[href="${had.getAttribute("href")}"]`));
  (place || results()).focus({ preventScroll: true });
}

function placeProblem(response, problem) {
  const shown = document.querySelector("#unreachable").content.cloneNode(true);
  if (problem) {
    const wait = response.headers.get("Retry-After");
    shown.querySelector("h1").textContent = response.status === 429 ? "The server is busy" : "This search did not work";
    shown.querySelector(".detail").textContent = problem.detail + (wait ? ` Try again in ${wait} s.` : "");
  }
  const again = shown.querySelector("a");
  again.href = location.search || "./";
  if (response?.status === 413) again.remove(); // it would be too large again
  results().dataset.view = "problem";
  results().replaceChildren(shown);
}

function announce() {
  document.documentElement.classList.add("js");
  live.textContent = results().querySelector("[data-status]")?.dataset.status ?? "";
  dispatchEvent(new Event("placed"));
}

function showImage() {
  const chip = document.querySelector(".sent"), image = imageOfNow();
  if (!chip || !image) return;
  const picture = new Image(28, 28);
  picture.alt = "";
  picture.src = URL.createObjectURL(image);
  picture.onload = picture.onerror = () => URL.revokeObjectURL(picture.src);
  chip.prepend(picture);
  chip.querySelector("span").textContent = image.name || "a pasted image";
}

/** What a form asks: the address without empty fields, and the image that was chosen in it. */
function asked(form, submitter) {
  const fields = [...new FormData(form, submitter)];
  const query = new URLSearchParams(fields.filter(([, value]) => typeof value === "string" && value.trim()));
  const image = fields.map(([, value]) => value).find((value) => value instanceof File && value.size);
  return [query.size ? `?${query}` : "./", image];
}

addEventListener("submit", (event) => {
  if (event.target.method === "dialog") return;
  event.preventDefault();
  const [address, image] = asked(event.target, event.submitter);
  go(address, image ?? (event.target.id === "search" ? imageOfNow() : undefined));
});

addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const url = new URL(link.href);
  if (url.hash || url.origin + url.pathname !== location.origin + location.pathname) return;
  event.preventDefault();
  if (link.closest(".switch") && text.value.trim()) url.searchParams.set("text", text.value);
  const stays = link.closest(IMAGE_STAYS) && !link.closest(".sent");
  go(url.search || "./", stays ? imageOfNow() : undefined);
});

addEventListener("popstate", () => {
  if (searchOfNow() !== shown) go(location.search || "./", imageOfNow(), true); // the link to the results changes nothing
});

addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.('input:not([type="checkbox"], [type="file"]), textarea, dialog')) return;
  event.preventDefault();
  text.focus();
  text.select();
});

history.scrollRestoration = "manual";
shown = searchOfNow();
watchGrid(live);
watchViewer();
watchImages((image) => go(asked(document.querySelector("#search"))[0], image));
announce();
