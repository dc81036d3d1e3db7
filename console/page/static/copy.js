// Copy buttons: data-copies names the field. Where the clipboard is not to be had, the text is selected instead.
for (const button of document.querySelectorAll("[data-copies]")) {
  const field = document.getElementById(button.dataset.copies);
  const said = button.parentElement.querySelector("[role=status]");
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(field.value);
      said.textContent = "Copied";
    } catch {
      field.focus();
      field.select();
      said.textContent = "Selected: press Ctrl+C";
    }
  });
}
