// Shows what a link to the glossary or the bibliography leads to, in a box beside it, on hover and focus.
(() => {
  const box = Object.assign(document.createElement("div"), { id: "explanation", className: "explanation" });
  box.setAttribute("role", "tooltip");
  box.hidden = true;
  let shown = null;

  function show(link) {
    shown = link;
    box.textContent = link.dataset.explanation;
    box.hidden = false;
    const at = link.getClientRects()[0], room = document.documentElement.clientWidth;
    box.style.left = `${Math.max(8, Math.min(at.left, room - box.offsetWidth - 8)) + window.scrollX}px`;
    const above = at.top - box.offsetHeight - 6;
    box.style.top = `${(above > 60 ? above : at.bottom + 6) + window.scrollY}px`;
    link.setAttribute("aria-describedby", box.id);
  }

  function hide() {
    shown?.removeAttribute("aria-describedby");
    shown = null;
    box.hidden = true;
  }

  for (const link of document.querySelectorAll("a.explained[title]")) {
    link.dataset.explanation = link.title;
    link.removeAttribute("title"); // the browser's own box would cover this one
    link.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && show(link));
    link.addEventListener("focus", () => link.matches(":focus-visible") && show(link));
    link.addEventListener("pointerleave", hide);
    link.addEventListener("blur", hide);
  }
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  document.body.append(box);
})();
