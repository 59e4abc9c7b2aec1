// The copy button of a console block takes the commands alone: no prompts, no output.
document.addEventListener("click", (event) => {
  const button = event.target.closest(".md-clipboard, .md-code__button");
  const block = button && button.closest(".language-console, .highlight");
  if (!block || !block.classList.contains("language-console")) return;
  const commands = [];
  let open = false; // the line before ended with a backslash
  for (const line of block.querySelector("code").innerText.split("\n")) {
    if (!line.startsWith("$ ") && !open) continue;
    commands.push(line.replace(/^\$ /, ""));
    open = line.endsWith("\\");
  }
  event.stopImmediatePropagation();
  navigator.clipboard.writeText(commands.join("\n") + "\n");
}, true);
