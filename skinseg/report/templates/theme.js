(function () {
  "use strict";
  var root = document.documentElement;
  root.classList.add("js");
  try {
    var kept = localStorage.getItem("skinseg-theme");
    if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  } catch (error) { /* Storage may be shut to files; the system's choice holds. */ }
})();
