// Runs before the page is drawn, so that the wrong theme never flashes. Order of the button: auto, dark, light.
const themes = ["auto", "dark", "light"];
const root = document.documentElement;

function stored() {
  try {
    const theme = localStorage.getItem("callfold-theme");
    return themes.includes(theme) ? theme : "auto";
  } catch {
    return "auto"; // storage is disabled
  }
}

function apply(theme) {
  if (theme === "auto") delete root.dataset.theme;
  else root.dataset.theme = theme;
}

apply(stored());

document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  let theme = stored();
  const name = () => (button.textContent = `Theme: ${theme}`);
  button.hidden = false;
  name();
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    apply(theme);
    name();
    try {
      localStorage.setItem("callfold-theme", theme);
    } catch {
      // the choice lasts for this page only
    }
  });
});
