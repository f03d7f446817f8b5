// Images that are dropped or pasted anywhere.

const sign = document.querySelector("#drop");
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");

export function watchImages(search) {
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault(); // otherwise the browser opens what is dropped
    sign.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) sign.hidden = true; // it left the window
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    sign.hidden = true;
    if (event.dataTransfer.files[0]) search(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => {
    const image = [...event.clipboardData.files].find((file) => file.type.startsWith("image/"));
    if (!image) return;
    event.preventDefault();
    search(image);
  });
}
