"use strict";
// Draws the charts of a report, and lets the reader sort, search and look at images. All text from the data goes
// through textContent: a key that looks like HTML stays text.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 44rem)");

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value !== null && value !== undefined) made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  function theme() {
    const ink = dark.matches ? "#e8eaed" : "#1a1d21";
    const line = dark.matches ? "#3a414c" : "#d5d9e0";
    return {
      background: "transparent",
      view: { stroke: line },
      axis: { labelColor: ink, titleColor: ink, gridColor: line, domainColor: line, tickColor: line },
      legend: { labelColor: ink, titleColor: ink, ...(narrow.matches ? { orient: "top", columns: 2 } : {}) },
      title: { color: ink },
      rule: { color: ink },
      text: { color: ink },
      mark: { color: dark.matches ? "#6ea8e8" : "#2f6fb3" },
    };
  }

  // Charts above each other have no width of their own: they take the page's, less their axis and legend.
  function fitted(spec, room) {
    if (!spec.vconcat) return spec;
    const width = Math.min(room - (narrow.matches ? 130 : 250), 900);
    return { ...spec, vconcat: spec.vconcat.map((part) => ({ ...part, width })) };
  }

  function draw(target, spec) {
    const options = { actions: false, renderer: "svg", config: theme(), tooltip: { theme: dark.matches ? "dark" : "light" } };
    return vegaEmbed(target, fitted(spec, target.clientWidth), options);
  }

  function drawAll() {
    for (const [id, spec] of Object.entries(data.charts)) {
      const target = find(id);
      if (target) draw(target, spec).catch((error) => target.append(`This chart cannot be drawn: ${error.message}`));
    }
  }

  drawAll();
  for (const query of [dark, narrow]) query.addEventListener("change", drawAll);
  if (!find("table")) return;

  // The table of images. Without a server all rows are here; with one it sorts, searches and sends a part.
  const columns = data.columns;
  const state = { sort: data.sort, descending: false, count: 100 };
  const show = (value) => (value === null || value === undefined ? "–" : typeof value === "number" ? value.toFixed(3) : value);

  function sorted() {
    const words = find("search").value.toLowerCase();
    const wanted = find("class").value;
    const rows = data.rows.filter((row) =>
      row.key.toLowerCase().includes(words) && (!wanted || row.folder === wanted || row.teacher === wanted));
    const sign = state.descending ? -1 : 1;
    const absent = (value) => value === null || value === undefined;
    return rows.sort((a, b) => {
      const [x, y] = [a[state.sort], b[state.sort]];
      if (absent(x) || absent(y)) return absent(x) - absent(y);
      return sign * (typeof x === "number" ? x - y : x < y ? -1 : x > y ? 1 : 0);
    });
  }

  async function rows() {
    if (!data.server) {
      const all = sorted();
      return { total: all.length, rows: all.slice(0, state.count) };
    }
    const query = new URLSearchParams({
      sort: state.sort, descending: state.descending ? 1 : 0, count: state.count,
      search: find("search").value, class: find("class").value,
    });
    return (await fetch(`rows?${query}`)).json();
  }

  let shown = [];
  async function table() {
    const answer = await rows();
    shown = answer.rows;
    find("count").textContent = `${shown.length.toLocaleString("en")} of ${answer.total.toLocaleString("en")} images`;
    find("more").hidden = shown.length >= answer.total;
    const head = columns.map(([name, title]) => element("th", {
      scope: "col", "aria-sort": name !== state.sort ? "none" : state.descending ? "descending" : "ascending",
    }, element("button", { type: "button", onclick: () => order(name) }, title)));
    find("table").tHead.replaceChildren(element("tr", {}, ...head));
    find("table").tBodies[0].replaceChildren(...shown.map((row) => element("tr", {}, ...columns.map(([name]) =>
      name === "key" ? element("td", {}, keyCell(row)) : element("td", {}, show(row[name]))))));
  }

  function keyCell(row) {
    const seen = data.server || data.details[row.image];
    if (!seen) return element("span", { class: "key" }, row.key);
    return element("button", { type: "button", class: "link key", onclick: () => look(row.image) }, row.key);
  }

  function order(name) {
    state.descending = state.sort === name ? !state.descending : false;
    state.sort = name;
    table();
  }

  function csv() {
    const quote = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
    const names = ["image", ...columns.map(([name]) => name)];
    const rowsToSave = data.server ? shown : sorted();
    const text = [names.join(","), ...rowsToSave.map((row) => names.map((name) => quote(row[name])).join(","))].join("\n");
    const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: "images.csv" });
    link.click();
    URL.revokeObjectURL(link.href);
  }

  // One image: its boxes, and of the chosen box the crop and its likeliest classes.
  async function look(image, scroll = true) {
    const detail = data.server ? await (await fetch(`image?number=${image}`)).json() : data.details[image];
    const side = element("div", { class: "crop", id: "crop" });
    const boxes = detail.boxes.map((one, place) => {
      const [top, left, height, width] = one.box.map((part) => `${100 * part}%`);
      return element("button", {
        type: "button", class: "box", "aria-pressed": "false", "aria-label": `crop ${one.crop}`,
        style: `top:${top};left:${left};height:${height};width:${width}`, onclick: () => choose(place),
      });
    });
    function choose(place) {
      boxes.forEach((box, other) => box.setAttribute("aria-pressed", other === place ? "true" : "false"));
      crop(side, detail, detail.boxes[place]);
    }
    // Small boxes lie above large ones, or nobody could reach them.
    const area = (place) => detail.boxes[place].box[2] * detail.boxes[place].box[3];
    const above = boxes.map((_, place) => place).sort((a, b) => area(b) - area(a)).map((place) => boxes[place]);
    const stage = detail.picture
      ? element("div", { class: "stage" }, element("img", { src: detail.picture, alt: `image ${detail.key}` }), ...above)
      : element("p", {}, detail.fault ?? "No pictures: give the images with --images.");
    const list = element("select", { "aria-label": "crop", onchange: (event) => choose(Number(event.target.value)) },
      ...detail.boxes.map((one, place) => element("option", { value: place }, `crop ${one.crop}`)));
    find("viewer").replaceChildren(
      element("p", {}, element("span", { class: "key" }, detail.key), ` · folder ${show(detail.folder)} · teacher ${show(detail.teacher)}`
        + ` · ${detail.boxes.length} of ${detail.crops} crops shown`),
      element("div", { class: "viewer" }, element("div", {}, stage), element("div", {}, list, side)));
    if (detail.boxes.length) choose(0);
    if (scroll) find("inspector").scrollIntoView({ behavior: "smooth" });
  }

  function crop(side, detail, one) {
    const chart = element("div", { class: "chart" });
    side.replaceChildren(
      one.picture ? element("img", { src: one.picture, alt: `crop ${one.crop} as the student sees it` }) : "",
      element("p", { class: "faint" }, `crop ${one.crop}${one.flip ? ", mirrored" : ""}`), chart);
    if (one.classes.length) draw(chart, { ...data.bars, datasets: { rows: one.classes } });
    if (one.other) {
      const second = element("div", { class: "chart" });
      side.append(element("p", { class: "faint" }, "the other teacher"), second);
      draw(second, { ...data.bars, datasets: { rows: one.other } });
    }
  }

  function strip(id, items) {
    find(id).replaceChildren(...items.map((one) => element("li", {},
      one.picture ? element("img", { src: one.picture, alt: `crop of ${one.key}` }) : null,
      element("div", { class: "key" }, one.key),
      element("div", {}, one.classes.slice(0, 2).map((c) => `${c.class} ${(100 * c.p).toFixed(0)} %`).join(", ")))));
  }

  for (const [title, images] of Object.entries(data.groups)) {
    find("groups").append(element("li", {}, element("label", {}, `${title} `, element("select", {
      onchange: (event) => event.target.value && look(Number(event.target.value), false),
    }, element("option", { value: "" }, "choose"), ...images.map((image) => element("option", { value: image }, data.keys[image]))))));
  }
  for (const name of data.classes) find("class").append(element("option", { value: name }, name));
  if (find("hardest")) {
    strip("hardest", data.hardest);
    strip("easiest", data.easiest);
  }
  find("search").addEventListener("input", table);
  find("class").addEventListener("change", table);
  find("csv").addEventListener("click", csv);
  find("more").addEventListener("click", () => { state.count *= 4; table(); });
  const first = Object.values(data.groups).flat()[0];
  if (first !== undefined) look(first, false);
  table();
})();
