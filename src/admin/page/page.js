// The operator's page: asks the server every two seconds and shows what it says. Everything that comes from the server
// becomes text and never markup; the page's policy holds the browser to that, too.
"use strict";

const EVERY = 2000, PATIENCE = 8000, IMAGES_EVERY = 20000, MOST_IMAGES = 1000;
const SAVING = ["hit", "revalidated", "stale", "joined"];
const $ = (id) => document.getElementById(id);

let heard = 0;         // When the server last answered, by this machine's clock.
let imagesAsked = 0;
let isAsking = false;
let timer;
const shown = new Map();

// Only what has changed is drawn, so that a selection and the focus outlive the next answer.
function draw(name, value, how) {
  const text = JSON.stringify(value);
  if (shown.get(name) === text) return;
  shown.set(name, text);
  const focus = document.activeElement && document.activeElement.dataset.key;
  how(value);
  if (focus) for (const one of document.querySelectorAll("[data-key]")) if (one.dataset.key === focus) one.focus();
}

function put(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function make(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// On a narrow screen a row is a block, and browsers then forget that it was one: the roles say so again.
function row(cells) {
  const made = make("tr");
  made.setAttribute("role", "row");
  for (const [index, { label, text, nodes, className }] of cells.entries()) {
    const cell = make(index ? "td" : "th", text, className);
    if (index) cell.dataset.label = label; else cell.scope = "row";
    cell.setAttribute("role", index ? "cell" : "rowheader");
    if (nodes) cell.append(...nodes);
    made.append(cell);
  }
  return made;
}

function bytes(count) {
  if (count < 0) return "−" + bytes(-count);
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return (unit && count < 10 ? count.toFixed(1) : Math.round(count)) + " " + units[unit];
}

function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 172800) return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
  return Math.floor(s / 86400) + " d";
}

const clock = (unix) => new Date(unix * 1000).toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" });
const percent = (part, whole) => whole ? (100 * part / whole).toFixed(1) + " %" : "–";
const sum = (counts, names) => names.reduce((all, name) => all + (counts[name] || 0), 0);
const short = (digest) => digest.replace(/^(sha\d+:[0-9a-f]{12})[0-9a-f]+$/, "$1…");

function figures(status) {
  const since = "since start, " + span(status.uptime_s) + " ago";
  const saving = sum(status.requests, SAVING), all = saving + sum(status.requests, ["miss"]);
  put("hit-ratio", percent(saving, all));
  put("hit-note", saving + " of " + all + " requests, " + since);
  const served = Object.values(status.response_bytes).reduce((a, b) => a + b, 0);
  put("served", bytes(served));
  put("served-note", "to clients, " + since);
  const saved = served - status.upstream_bytes;
  put("saved", bytes(saved));
  put("saved-note", bytes(status.upstream_bytes) + " came from upstreams" + (saved < 0 ? ", more than went out" : ""));
  const { used_bytes: used, max_bytes: cap, blobs } = status.cache;
  put("disk", bytes(used));
  put("disk-note", "of " + bytes(cap) + " (" + percent(used, cap) + "), " + blobs + " blobs");
  $("disk-meter").value = cap ? used / cap : 0;
  put("server", "version " + status.version + ", up " + span(status.uptime_s));
}

const STATES = { up: ["● up", "good"], doubtful: ["◐ in doubt", "doubt"], down: ["○ out of order", "bad"] };

function upstreams(all) {
  const rows = [];
  for (const upstream of all) {
    const hosts = [[upstream.name, upstream.registry]];
    for (const fallback of upstream.fallbacks) hosts.push([upstream.name + ", fallback", fallback]);
    for (const [name, host] of hosts) {
      for (const part of host.parts) {
        const [word, className] = STATES[part.state] || [part.state, "doubt"];
        rows.push(row([
          { text: name + " (" + host.host + ")" },
          { label: "Part", text: part.part },
          { label: "State", text: word, className: "state " + className },
          { label: "Since", text: part.since ? clock(part.since) : "", className: "whole" },
          { label: "Why", text: part.reason || "" },
        ]));
      }
      if (host.limited_until) {
        rows.push(row([
          { text: name + " (" + host.host + ")" },
          { label: "Part", text: "all" },
          { label: "State", text: "◐ wants a pause", className: "state doubt" },
          { label: "Since", text: "" },
          { label: "Why", text: "asks not to be asked until " + clock(host.limited_until) },
        ]));
      }
    }
  }
  $("upstreams").replaceChildren(...rows);
}

function fills(status) {
  put("fills-count", String(status.fills_in_flight));
  $("fills-none").hidden = status.fills.length > 0;
  $("fills").replaceChildren(...status.fills.map((fill) => {
    const item = make("li", fill.repository + " ");
    const digest = make("span", short(fill.digest), "mono");
    digest.title = fill.digest;
    const progress = make("progress");
    progress.setAttribute("aria-label", "How much of it is here");
    if (fill.size) { progress.max = fill.size; progress.value = fill.bytes; }
    const many = fill.readers + (fill.readers === 1 ? " reader" : " readers");
    const size = fill.size ? " of " + bytes(fill.size) : "";
    item.append(digest, progress, make("span", bytes(fill.bytes) + size + ", " + many, "quiet"));
    return item;
  }));
}

function budget({ accounts, spent }) {
  const known = accounts.filter((one) => one.limit !== null || one.limited_until || one.is_refused);
  $("budget-none").hidden = known.length > 0;
  $("accounts").replaceChildren(...known.map((one) => {
    const item = make("li", one.upstream + ", " + one.name + ": ");
    if (one.is_refused) item.append(make("strong", "its password is not accepted. ", "bad"));
    if (one.limited_until) item.append(make("strong", "used up until " + clock(one.limited_until) + ". ", "bad"));
    if (one.limit !== null && one.remaining !== null) {
      const window = one.window_s ? " in " + span(one.window_s) : "";
      item.append(one.remaining + " of " + one.limit + " pulls left" + window);
      const meter = make("meter");
      meter.max = Math.max(1, one.limit);
      meter.low = one.limit / 10;
      meter.optimum = one.limit;
      meter.value = one.remaining;
      meter.setAttribute("aria-label", "Pulls left");
      item.append(meter);
      if (one.told) item.append(make("span", "as told at " + clock(one.told), "quiet"));
    }
    return item;
  }));
  $("spent").replaceChildren(...spent.map((one) => row([
    { text: clock(one.at), className: "whole" },
    { label: "Image", text: one.upstream + "/" + one.image },
    { label: "For", text: one.on_behalf_of },
  ])));
}

function activity({ days, errors, images, clients }) {
  for (const part of ["days-part", "tops-part", "errors-part"]) $(part).hidden = false;
  $("days").replaceChildren(...days.map((day) => row([
    { text: day.day },
    { label: "Hit ratio", text: percent(day.hits, day.requests), className: "number" },
    { label: "Served", text: bytes(day.bytes), className: "number" },
    { label: "From the cache", text: bytes(day.cached_bytes), className: "number" },
  ])));
  $("errors-none").hidden = errors.length > 0;
  $("errors").replaceChildren(...errors.map((one) => row([
    { text: clock(one.at), className: "whole" },
    { label: "Status", text: String(one.status || "none") },
    { label: "Path", text: one.path, className: "mono" },
    { label: "Why", text: one.reason },
  ])));
  for (const [id, list] of [["top-images", images], ["top-clients", clients]]) {
    $(id).replaceChildren(...list.slice(0, 10).map((one) => make("li", one.name + ": " + (one.over ? "≤ " : "") + one.count)));
  }
}

const IMAGE_MARKS = ["pinned", "stale", "hosted"];

function images(list) {
  put("images-count", list.length < MOST_IMAGES ? String(list.length) : "the first " + list.length + ": search for others");
  $("images").replaceChildren(...list.map((one) => {
    const name = one.tags && one.tags.length ? one.image + ": " + one.tags.join(", ") : one.image;
    const head = [make("span", name)];
    const digest = make("span", short(one.digest || ""), "quiet mono");
    digest.title = one.digest || "";
    head.push(make("br"), digest);
    const shared = one.shared_bytes ? " (" + bytes(one.shared_bytes) + " shared)" : "";
    const marks = IMAGE_MARKS.filter((mark) => one[mark]);
    if (one.complete === false) marks.push("incomplete");
    const used = one.last_used;
    return row([
      { nodes: head },
      { label: "Platforms", text: (one.platforms || []).join(", ") },
      { label: "Size", text: bytes(one.bytes || 0) + shared, className: "number" },
      { label: "Last used", text: typeof used === "number" ? clock(used) : used || "", className: "whole" },
      { label: "State", text: marks.join(", ") || "complete" },
      { label: "Change", nodes: buttons(one) },
    ]);
  }));
}

// By tag a pin follows the image; by digest exactly this one goes, and what its name means meanwhile stays.
function buttons(one) {
  if (one.hosted) return [];
  const exactly = one.image + "@" + one.digest;
  const names = one.tags.length ? one.tags.map((tag) => one.image + ":" + tag) : [exactly];
  const button = (word, className, question, requests) => {
    const made = make("button", word, className);
    made.type = "button";
    made.dataset.key = word + " " + exactly;
    made.setAttribute("aria-label", word + " " + names.join(", "));
    made.addEventListener("click", () => change(question, word, requests));
    return made;
  };
  const all = names.join(", ");
  const unpinned = names.map((name) => ["DELETE", "/api/pins?pattern=" + encodeURIComponent(name)]);
  const pinned = names.map((pattern) => ["POST", "/api/pins", { pattern }]);
  const gone = [["DELETE", "/api/images?image=" + encodeURIComponent(exactly)]];
  return [
    one.pinned
      ? button("Unpin", "", "Unpin " + all + "? It may then be evicted.", unpinned)
      : button("Pin", "", "Pin " + all + "? It is then never evicted.", pinned),
    button("Remove", "grave", "Remove " + all + " from the cache? Who asks again waits until it is fetched, if upstream still has it.", gone),
  ];
}

function confirmed(question, word) {
  put("question", question);
  put("yes", word);
  $("confirm").returnValue = "no";
  $("confirm").showModal();
  return new Promise((done) => {
    $("confirm").addEventListener("close", () => done($("confirm").returnValue === "yes"), { once: true });
  });
}

async function change(question, word, requests) {
  if (!await confirmed(question, word)) return;
  try {
    for (const [method, path, body] of requests) {
      const headers = { "X-Larder-Request": "1" };
      if ($("token").value) headers.Authorization = "Bearer " + $("token").value;
      if (body) headers["Content-Type"] = "application/json";
      const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
      const said = (await answer.text()).trim();
      tell(answer.ok ? "Done: " + word.toLowerCase() + "." : said || "The server answered " + answer.status + ".", answer.ok);
      // One of several names may not be what is pinned: the others still are.
      if (!answer.ok && answer.status !== 404) break;
    }
  } catch {
    tell("The server does not answer: nothing is known of what became of it.", false);
  }
  imagesAsked = 0;
  ask();
}

function tell(text, isGood) {
  put("told", text);
  $("told").className = isGood ? "good" : "bad";
}

// None where the server has no such page.
async function get(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error("it answered " + answer.status);
  return answer.json();
}

async function askImages() {
  if (Date.now() - imagesAsked < IMAGES_EVERY) return;
  imagesAsked = Date.now();
  const query = $("search").value.trim();
  const answer = await fetch("/api/images" + (query ? "?q=" + encodeURIComponent(query) : ""), { signal: AbortSignal.timeout(PATIENCE) });
  $("images-part").hidden = answer.status === 404;
  // While the index is made, the rest of the page is right all the same.
  if (answer.ok) draw("images", await answer.json(), images);
  put("images-why", answer.ok ? "" : (await answer.text()).trim());
}

async function ask() {
  if (isAsking) return;
  isAsking = true;
  clearTimeout(timer);
  try {
    const [status, left, lately] = await Promise.all([get("/api/status"), get("/api/budget"), get("/api/activity")]);
    if (status === null) throw new Error("it has no /api/status");
    heard = Date.now();
    figures(status);
    draw("upstreams", status.upstreams, upstreams);
    draw("fills", { fills: status.fills, fills_in_flight: status.fills_in_flight }, fills);
    draw("mirror", status.mirror, (mirror) => put("snippet", JSON.stringify({ "registry-mirrors": [mirror] }, null, 2)));
    if (left) draw("budget", left, budget);
    if (lately) draw("activity", lately, activity);
    await askImages();
    put("live", "● live");
    $("live").className = "state good";
  } catch (error) {
    const since = heard ? "; what is shown is of " + new Date(heard).toLocaleTimeString() : "";
    put("live", "○ the server does not answer" + since);
    $("live").className = "state bad";
    $("live").title = String(error);
  }
  isAsking = false;
  if (!document.hidden) timer = setTimeout(ask, EVERY);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer); else ask();
});
let typed;
$("search").addEventListener("input", () => {
  imagesAsked = 0;
  clearTimeout(typed);
  typed = setTimeout(ask, 300);
});
$("token").value = sessionStorage.getItem("token") || "";
$("token").addEventListener("input", () => sessionStorage.setItem("token", $("token").value));
$("copy").addEventListener("click", async () => {
  // A page that came over plain HTTP from another machine may not write there: then the text is marked, to be copied by hand.
  try {
    await navigator.clipboard.writeText($("snippet").textContent);
    put("copied", "Copied.");
  } catch {
    getSelection().selectAllChildren($("snippet"));
    put("copied", "Marked: copy it with the keyboard.");
  }
});
for (const [tag, role] of [["table", "table"], ["tbody", "rowgroup"]]) {
  for (const one of document.querySelectorAll(tag)) one.setAttribute("role", role);
}
ask();
