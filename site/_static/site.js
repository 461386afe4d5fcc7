// What scrolls sideways can be reached by keyboard: outputs, tables, formulas. Nothing else is done here.
(() => {
  "use strict";
  const wide = ".text_html, .output pre, .highlight pre, pre.literal-block, mjx-container[display='true'], .wide-table";
  function reach() {
    document.querySelectorAll(wide).forEach((node) => {
      if (node.scrollWidth > node.clientWidth && !node.hasAttribute("tabindex")) {
        node.tabIndex = 0;
        if (!node.hasAttribute("role") && node.tagName !== "PRE") node.setAttribute("role", "group");
        if (!node.hasAttribute("aria-label")) node.setAttribute("aria-label", document.documentElement.lang === "ja" ? "横に長い内容" : "wide content");
      }
    });
  }
  window.addEventListener("load", () => { reach(); window.MathJax?.startup?.promise?.then(reach); });
  window.addEventListener("resize", reach);
})();
