// A picture that cannot be loaded, or audio that cannot be played, is replaced by words.
for (const recording of document.querySelectorAll(".recording")) {
  const say = (text) => (recording.querySelector(".playback").textContent = text);
  const replaced = (element, text) => {
    const replace = () => {
      element.remove();
      say(text);
    };
    if (element.tagName === "IMG" && element.complete && element.currentSrc && !element.naturalWidth) replace();
    else element.addEventListener("error", replace);
  };
  for (const picture of recording.querySelectorAll("img")) replaced(picture, "The picture is not available now. Reload the page to try again.");
  for (const audio of recording.querySelectorAll("audio")) replaced(audio, "This recording cannot be played here. Download it instead.");
}
