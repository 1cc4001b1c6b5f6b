// What scrolls sideways can be reached by keyboard, and only while it does.
(() => {
  const wide = document.querySelectorAll(
    ".bd-article :is(table, pre, div.math, mjx-container, .pst-scrollable-table-container, .text_html)",
  );
  function mark() {
    for (const element of wide) {
      if (element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).overflowX !== "visible") {
        element.tabIndex = 0;
      } else {
        element.removeAttribute("tabindex");
      }
    }
  }
  new ResizeObserver(mark).observe(document.body);
  mark();
})();
