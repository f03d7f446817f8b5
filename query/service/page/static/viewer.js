// One image, large, with what is known of it.

const dialog = document.querySelector("#viewer");
let card; // the hit that is shown

export function watchViewer() {
  addEventListener("click", (event) => {
    const link = event.target.closest?.(".hit .open");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(link.closest(".hit"));
    dialog.showModal();
  }, true); // before the click counts as one on a link of the page
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
    else if (event.target.dataset.step) step(Number(event.target.dataset.step));
  });
  dialog.addEventListener("keydown", (event) => step({ ArrowLeft: -1, ArrowRight: 1 }[event.key]));
  dialog.addEventListener("close", () => card?.querySelector(".open").focus());
  addEventListener("placed", () => {
    card = undefined;
    dialog.close();
  });
}

function step(by) {
  const all = [...card.closest(".column, .gallery").querySelectorAll(".hit")];
  const next = by && all[all.indexOf(card) + by];
  if (next) show(next);
}

function show(hit) {
  card = hit;
  const name = hit.querySelector(".name").textContent.trim();
  const thumb = hit.querySelector("img"), image = new Image(thumb.width, thumb.height);
  [image.width, image.height] = [thumb.getAttribute("width"), thumb.getAttribute("height")];
  image.alt = name;
  image.onerror = () => image.replaceWith("This image cannot be shown. Perhaps it was moved or deleted.");
  image.src = hit.querySelector(".open").href;
  const details = hit.querySelector("dl").cloneNode(true);
  details.hidden = false;
  const like = document.createElement("a");
  [like.href, like.className, like.textContent] = [hit.querySelector(".like").href, "button", "More like this"];
  dialog.querySelector("h2").textContent = name;
  dialog.querySelector("figure").replaceChildren(image);
  dialog.querySelector(".about").replaceChildren(details, like);
  const all = [...hit.closest(".column, .gallery").querySelectorAll(".hit")];
  dialog.querySelector('[data-step="-1"]').disabled = hit === all[0];
  dialog.querySelector('[data-step="1"]').disabled = hit === all.at(-1);
}
