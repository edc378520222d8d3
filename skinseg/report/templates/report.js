(function () {
  "use strict";
  var root = document.documentElement;
  var announcer = document.getElementById("announce");
  var collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  var UNDEFINED = "–";

  function all(selector, within) {
    return Array.prototype.slice.call((within || document).querySelectorAll(selector));
  }
  function announce(text) {
    announcer.textContent = text;
  }
  function grouped(number) {
    return number.toLocaleString("en-US");
  }

  /* Theme: the system's until somebody chooses. */
  var themeButton = document.getElementById("theme");
  var system = window.matchMedia("(prefers-color-scheme: dark)");
  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  }
  function showTheme() {
    themeButton.textContent = isDark() ? "Light theme" : "Dark theme";
  }
  themeButton.addEventListener("click", function () {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("skinseg-theme", root.dataset.theme);
    } catch (error) { /* Not kept, then. */ }
    showTheme();
  });
  system.addEventListener("change", showTheme);
  showTheme();

  /* Sorting. What is undefined comes last whichever way. */
  function order(count, value, direction) {
    var keys = new Array(count);
    var places = new Array(count);
    for (var i = 0; i < count; i++) {
      keys[i] = value(i);
      places[i] = i;
    }
    return places.sort(function (a, b) {
      var x = keys[a], y = keys[b];
      if (x === null || y === null) return x === y ? a - b : x === null ? 1 : -1;
      var by = typeof x === "number" && typeof y === "number" ? (x < y ? -1 : x > y ? 1 : 0) : collator.compare(x, y);
      return direction * by || a - b;
    });
  }
  function onSort(table, sort) {
    var heads = all("thead th", table);
    heads.forEach(function (head, column) {
      var button = head.querySelector("button.sort");
      if (!button) return;
      button.addEventListener("click", function () {
        var direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach(function (other) {
          if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
        });
        head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
        sort(column, direction);
        announce("Sorted by " + button.textContent.trim() + ", " + (direction === 1 ? "ascending" : "descending") + ".");
      });
    });
  }
  all("table[data-sortable]").forEach(function (table) {
    var body = table.tBodies[0];
    var rows = Array.prototype.slice.call(body.rows);
    onSort(table, function (column, direction) {
      var sorted = order(rows.length, function (i) {
        var cell = rows[i].cells[column];
        if (!cell.hasAttribute("data-value")) return cell.textContent.trim();
        return cell.dataset.value === "" ? null : Number(cell.dataset.value);
      }, direction);
      sorted.forEach(function (i) { body.appendChild(rows[i]); });
    });
  });

  /* The table of all images: only one page of it is ever in the document. */
  var data = document.getElementById("image-data");
  if (data) {
    var content = JSON.parse(data.textContent);
    var columns = content.columns;
    var values = content.values;
    var total = values.length ? values[0].length : 0;
    var imageTable = document.getElementById("image-table");
    var tbody = imageTable.tBodies[0];
    var filter = document.getElementById("filter");
    var counter = document.getElementById("images-count");
    var place = document.getElementById("page-place");
    var back = document.getElementById("page-back");
    var on = document.getElementById("page-on");
    var sorted = null;
    var shown = [];
    var start = 0;
    columns.forEach(function (column, c) {
      if (column.decimals === null) return;
      values[c] = values[c].map(function (value) {
        return value === "inf" ? Infinity : value === "-inf" ? -Infinity : value;
      });
    });
    var texts = new Array(total);
    for (var i = 0; i < total; i++) {
      texts[i] = columns.map(function (column, c) { return column.decimals === null ? values[c][i] : ""; }).join("\n").toLowerCase();
    }
    sorted = texts.map(function (_, i) { return i; });

    var written = function (column, value) {
      if (value === null || value === "") return UNDEFINED;
      if (column.decimals === null) return value;
      if (value === Infinity) return "∞";
      if (value === -Infinity) return "−∞";
      var text = value.toLocaleString("en-US", { minimumFractionDigits: column.decimals, maximumFractionDigits: column.decimals });
      return (/[1-9]/.test(text) ? text : text.replace("-", "")).replace("-", "−");
    };
    var draw = function () {
      var rows = document.createDocumentFragment();
      shown.slice(start, start + content.page).forEach(function (i) {
        var row = document.createElement("tr");
        columns.forEach(function (column, c) {
          var cell = document.createElement(c === 0 ? "th" : "td");
          if (c === 0) cell.scope = "row";
          if (column.decimals !== null) cell.className = "num";
          cell.textContent = written(column, values[c][i]);
          row.appendChild(cell);
        });
        rows.appendChild(row);
      });
      tbody.replaceChildren(rows);
      var end = Math.min(start + content.page, shown.length);
      counter.textContent = grouped(shown.length) + " of " + grouped(total) + " images";
      place.textContent = shown.length ? "Rows " + grouped(start + 1) + " to " + grouped(end) + " of " + grouped(shown.length) : "No image matches";
      back.disabled = start === 0;
      on.disabled = end >= shown.length;
    };
    var search = function () {
      var words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      shown = words.length ? sorted.filter(function (i) {
        return words.every(function (word) { return texts[i].indexOf(word) !== -1; });
      }) : sorted;
      start = 0;
      draw();
    };
    var turn = function (step) {
      start = Math.max(0, start + step * content.page);
      draw();
      announce(place.textContent);
    };
    onSort(imageTable, function (column, direction) {
      var keys = values[column];
      sorted = order(total, function (i) { return keys[i] === "" ? null : keys[i]; }, direction);
      search();
    });
    filter.addEventListener("input", function () {
      search();
      announce(counter.textContent);
    });
    back.addEventListener("click", function () { turn(-1); });
    on.addEventListener("click", function () { turn(1); });
    search();
  }

  /* Photographs. */
  var dialog = document.getElementById("large");
  if (dialog) {
    var gallery = document.getElementById("gallery");
    var stage = dialog.querySelector(".stage");
    var buttons = all(".enlarge", gallery);
    var current = 0;
    var switches = all("input[data-switch]", gallery);
    var switchOutline = function (index, visible) {
      switches.forEach(function (box) {
        if (box.dataset.switch === index) box.checked = visible;
      });
      all(".outline[data-outline=\"" + index + "\"]", gallery).forEach(function (outline) {
        outline.classList.toggle("off", !visible);
      });
    };
    var show = function (index) {
      current = (index + buttons.length) % buttons.length;
      var button = buttons[current];
      var frame = button.querySelector(".frame").cloneNode(true);
      var image = frame.querySelector("img");
      stage.style.setProperty("--proportion", String(image.getAttribute("width") / image.getAttribute("height")));
      stage.replaceChildren(frame, button.parentNode.querySelector("figcaption").cloneNode(true));
    };
    switches.forEach(function (box) {
      /* A reload may bring back what was unchecked. */
      box.checked = true;
      box.addEventListener("change", function () { switchOutline(box.dataset.switch, box.checked); });
    });
    buttons.forEach(function (button, index) {
      button.addEventListener("click", function () {
        show(index);
        dialog.showModal();
      });
    });
    all("[data-step]", dialog).forEach(function (button) {
      button.addEventListener("click", function () { show(current + Number(button.dataset.step)); });
    });
    dialog.querySelector("[data-close]").addEventListener("click", function () { dialog.close(); });
    dialog.addEventListener("click", function (event) {
      if (event.target === dialog) dialog.close();
    });
    dialog.addEventListener("keydown", function (event) {
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
        event.preventDefault();
        show(current + (event.key === "ArrowLeft" ? -1 : 1));
      }
    });
    dialog.addEventListener("close", function () {
      stage.replaceChildren();
      buttons[current].focus();
    });
  }

  /* On paper nothing can be opened. */
  var opened = [];
  window.addEventListener("beforeprint", function () {
    opened = all("details:not([open])");
    opened.forEach(function (part) { part.open = true; });
  });
  window.addEventListener("afterprint", function () {
    opened.forEach(function (part) { part.open = false; });
  });
})();
