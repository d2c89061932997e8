// The storefront page: asks for a shelf, shows it with everything the answer says about itself, sends events back.
//
// One rule: whatever came over the wire is text. Elements are made by `make` and `draw` of elements.js, which
// never parse markup. The address bar holds the whole state, so that a shelf can be sent to a colleague.
"use strict";

const byId = (id) => document.getElementById(id);
const PLACEMENTS = ["home", "item", "cart", "category"];
const PROMISE_MS = 100;
const KEPT_REQUESTS = 40;

const state = {
  userId: null, visitorId: `page-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`,
  placement: "home", item: null, cart: [], category: null,
  titles: new Map(), categories: new Set(), sourceNames: [], requests: [], ranks: new Map(), shelfName: "", watermark: null,
  newest: 0,
};

// The wire.

async function call(method, path, body) {
  const started = performance.now();
  const init = { method, headers: {} };
  if (body !== undefined) {
    init.headers["content-type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, init);
  } catch {
    throw { title: "No answer", detail: "tutti cannot be reached; is it running?" };
  }
  const text = await response.text();
  const tripMs = performance.now() - started;
  let document = null;
  try { document = JSON.parse(text); } catch { /* shown below as the status */ }
  if (!response.ok) throw document || { title: `Status ${response.status}`, detail: "the answer is no problem document" };
  return { document, tripMs };
}

const shopper = () => (state.userId ? { user_id: state.userId } : { visitor_id: state.visitorId });

function requestBody() {
  const body = { placement: state.placement, ...shopper(), count: Number(byId("count").value) };
  const context = {};
  if (state.placement === "item" && state.item) context.item_ids = [state.item];
  if (state.cart.length) context.cart_item_ids = state.cart;
  if (state.placement === "category" && state.category) context.category = state.category;
  if (Object.keys(context).length) body.context = context;
  if (byId("diversity").value !== "off") body.diversity = byId("diversity").value;
  if (byId("explain").checked) body.explain = true;
  return body;
}

async function refresh() {
  const mine = ++state.newest;
  if (state.placement === "category" && !state.category) state.category = [...state.categories].sort()[0] || null;
  showControls();
  const list = byId("items");
  if (state.placement === "category" && !state.category) {
    list.replaceChildren(make("li", { className: "empty", textContent: state.titles.size
      ? "The items seen so far have no category." : "No category is known yet: look at Home first." }));
    return;
  }
  const body = requestBody();
  showCall(body);
  list.setAttribute("aria-busy", "true");
  if (!list.children.length) list.append(...Array.from({ length: 8 }, () => make("li", { className: "ghost" })));
  try {
    const [{ document: slate, tripMs }] = await Promise.all([call("POST", "/v1/recommendations", body), learnTitles()]);
    if (mine !== state.newest) return; // a newer question is on its way; its answer is the one to show
    byId("problem").hidden = true;
    learn(slate);
    showShelf(slate, JSON.stringify([body.placement, shopper(), state.item, state.category, body.count, body.diversity]));
    showQuality(slate, tripMs);
    byId("answer").textContent = JSON.stringify(slate, null, 2);
    showControls();
  } catch (problem) {
    if (mine !== state.newest) return;
    showProblem(problem);
    list.replaceChildren();
  } finally {
    if (mine === state.newest) list.setAttribute("aria-busy", "false");
  }
}

const EVENT_WORDS = { view: "looked at", add_to_cart: "put into the cart", remove_from_cart: "took out of the cart", purchase: "bought" };

async function tell(type, item) {
  const event = { event_id: crypto.randomUUID ? crypto.randomUUID() : `page-${Date.now()}-${Math.random()}`,
    event_type: type, item_id: item.id, ...shopper() };
  if (item.recommendationId) Object.assign(event, { recommendation_id: item.recommendationId, position: item.rank });
  if (type === "purchase") Object.assign(event, { quantity: 1, ...(item.price !== undefined && { price: item.price }) });
  const list = byId("events");
  if (!list.querySelector(".told")) list.replaceChildren();
  const line = make("li", { className: "told", textContent: `${EVENT_WORDS[type]} ${titleOf(item.id)} …` });
  list.prepend(line);
  try {
    const { document: answer } = await call("POST", "/v1/events", { events: [event] });
    line.textContent = `${EVENT_WORDS[type]} ${titleOf(item.id)}: accepted, watermark ${answer.watermark ?? "?"}`;
  } catch (problem) {
    line.textContent = `${EVENT_WORDS[type]} ${titleOf(item.id)}: ${problem.detail || problem.title}`;
    showProblem(problem);
  }
}

// A shelf in the address bar names items whose titles this page has not seen yet; a ranking of them tells.
async function learnTitles() {
  const unknown = [...new Set([state.item, ...state.cart])].filter((id) => id && !state.titles.has(id));
  if (!unknown.length) return;
  try {
    const { document: slate } = await call("POST", "/v1/rankings", { item_ids: unknown });
    for (const id of slate.missing_item_ids) state.titles.set(id, id);
    learn(slate);
  } catch { /* the id is shown instead */ }
}

const titleOf = (id) => state.titles.get(id) || id;

function learn(slate) {
  for (const item of slate.items) {
    const { title, category } = item.properties || {};
    if (title) state.titles.set(item.id, title);
    if (category) category.split(" > ").forEach((_, i, path) => state.categories.add(path.slice(0, i + 1).join(" > ")));
  }
  for (const source of slate.quality.sources) {
    if (!state.sourceNames.includes(source.name)) state.sourceNames.push(source.name);
  }
}

// What is shown.

const HEADINGS = {
  home: () => (state.userId ? "For this shopper" : "For a new visitor"),
  item: () => (state.item ? `Goes with ${titleOf(state.item)}` : "No item chosen: for this shopper"),
  cart: () => (state.cart.length ? "Goes with the cart" : "The cart is empty: for this shopper"),
  category: () => state.category.split(" > ").pop(),
};
const words = (name) => name.replaceAll("_", " ");
const number = (value, digits = 2) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

function showShelf(slate, shelfName) {
  const before = shelfName === state.shelfName ? state.ranks : null; // the same shelf, asked again
  byId("heading").textContent = HEADINGS[state.placement]();
  const cards = slate.items.map((item) => card(item, slate, before));
  byId("items").replaceChildren(...(cards.length ? cards
    : [make("li", { className: "empty", textContent: "Nothing may be shown here: every item is excluded or sold out." })]));
  state.ranks = new Map(slate.items.map((item) => [item.id, item.rank]));
  state.shelfName = shelfName;
}

function moved(item, before) {
  if (!before) return null;
  const was = before.get(item.id);
  if (was === undefined) return make("span", { className: "move new", textContent: "new" });
  if (was === item.rank) return null;
  const up = was > item.rank;
  return make("span", { className: up ? "move up" : "move", textContent: `${up ? "▲" : "▼"} ${Math.abs(was - item.rank)}` });
}

function card(item, slate, before) {
  const { title, brand, category, price } = item.properties || {};
  const about = { id: item.id, rank: item.rank, price, recommendationId: slate.recommendation_id };
  const open = make("button", { className: "open", type: "button", data: { id: item.id } },
    make("span", { className: "thumb" }, thumbnail(item.id, category, title),
      make("span", { className: "rank", textContent: String(item.rank) }), moved(item, before)),
    make("span", { className: "text" },
      make("span", { className: "title", textContent: title || item.id, title: title || item.id }),
      make("span", { className: "by", textContent: [brand, category && category.split(" > ").pop()].filter(Boolean).join(" · ") }),
      make("span", { className: "line" },
        make("span", { className: "price", textContent: typeof price === "number" ? number(price) : "" }),
        make("span", { className: "score", textContent: typeof item.score === "number" ? item.score.toFixed(4) : "",
          title: "score of the last stage that scored" }))));
  open.addEventListener("click", () => openItem(about));
  const badges = item.sources.map((name) => {
    const rank = item.reason && item.reason.ranks[name];
    return make("span", { className: `badge s${Math.max(0, state.sourceNames.indexOf(name)) % 5}${name === "popular" ? " s4" : ""}`,
      textContent: rank ? `${words(name)} #${rank}` : words(name) });
  });
  const label = title || item.id;
  const add = make("button", { type: "button", textContent: "Add to cart", "aria-label": `Add ${label} to the cart` });
  const buy = make("button", { type: "button", className: "buy", textContent: "Buy", "aria-label": `Buy ${label}` });
  add.addEventListener("click", () => addToCart(about));
  buy.addEventListener("click", () => purchase(about));
  return make("li", { className: "card" }, open, make("div", { className: "badges" }, ...badges),
    make("div", { className: "actions" }, add, buy));
}

function sentence({ quality, items }) {
  const missing = quality.degraded.map((name) => {
    const source = quality.sources.find((one) => one.name === name);
    return source ? `${words(name)} (${source.status})` : words(name);
  });
  const without = missing.length ? ` Without: ${missing.join(", ")}.` : "";
  switch (quality.level) {
    case "full": return quality.from_cache ? "Everything contributed; remembered from a moment ago." : "Everything contributed." + without;
    case "partial": return "The shelf is personal, but something did not contribute." + without;
    case "stale": return "A remembered shelf; a new one is being made behind this answer.";
    case "popular": return (items.length ? "What is popular here: nothing personal is in it." : "Nothing can be shown.") + without;
    default: return quality.level;
  }
}

function showQuality(slate, tripMs) {
  const { quality } = slate;
  const level = byId("level");
  level.hidden = false;
  level.className = `level ${quality.level}`;
  level.textContent = quality.level;
  byId("say").textContent = sentence(slate);
  byId("took").textContent = `${number(slate.took_ms, 1)} ms`;
  byId("trip").textContent = `${number(tripMs, 1)} ms`;
  byId("cached").textContent = quality.from_cache ? "yes" : "no";
  const watermark = byId("watermark");
  const before = state.watermark;
  watermark.textContent = before !== null && before !== slate.watermark ? `${before} → ${slate.watermark}` : String(slate.watermark);
  watermark.className = before !== null && before !== slate.watermark ? "moved" : "";
  state.watermark = slate.watermark;
  const rows = quality.sources.map((source) => make("tr", {},
    make("td", { textContent: words(source.name) }),
    make("td", {}, make("span", { className: "status" }, make("span", { className: `dot ${source.status}` }), source.status)),
    make("td", { textContent: number(source.ms, 1) }),
    make("td", { textContent: `${source.kept} / ${source.candidates}` })));
  byId("sources").replaceChildren(...rows);
  const versions = Object.entries(slate.model_versions).map(([name, version]) => `${words(name)} ${version}`);
  byId("versions").textContent = versions.length ? `Models: ${versions.join(" · ")}` : "No model took part.";
  state.requests.push({ ms: slate.took_ms, cached: quality.from_cache });
  state.requests.splice(0, state.requests.length - KEPT_REQUESTS);
  showSpark();
}

function showSpark() {
  const slowest = Math.max(...state.requests.map((one) => one.ms));
  // The promise is drawn only when a bar comes near it; else it would flatten everything below.
  const top = slowest > PROMISE_MS / 2 ? Math.max(slowest, PROMISE_MS) * 1.1 : Math.max(slowest * 1.25, 1);
  const step = 300 / KEPT_REQUESTS;
  const bars = state.requests.map(({ ms, cached }, i) => {
    const height = Math.max(2, (ms / top) * 64);
    const look = ms > PROMISE_MS ? "late" : cached ? "cached" : "";
    return draw("rect", { x: i * step, y: 64 - height, width: step - 1.5, height, rx: 1, class: look },
      draw("title", {}, `${number(ms, 1)} ms${cached ? ", from cache" : ""}`));
  });
  const y = 64 - (PROMISE_MS / top) * 64;
  byId("spark").replaceChildren(...bars, ...(y >= 0 ? [draw("line", { x1: 0, x2: 300, y1: y, y2: y })] : []));
  const sorted = state.requests.map((one) => one.ms).sort((a, b) => a - b);
  byId("spark-text").textContent = `${sorted.length} ${sorted.length === 1 ? "request" : "requests"}: median ${number(sorted[sorted.length >> 1], 1)} ms, ` +
    `slowest ${number(slowest, 1)} ms of the ${PROMISE_MS} promised. Pale bars came from the cache.`;
}

function showCall(body) {
  const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
  byId("curl").textContent =
    `curl -X POST ${location.origin}/v1/recommendations \\\n  -H 'content-type: application/json' \\\n  -d '${quoted}'`;
}

function showProblem(problem) {
  byId("level").hidden = true;
  const box = byId("problem");
  box.replaceChildren(make("strong", { textContent: problem.title || "That did not work" }),
    make("div", { textContent: problem.detail || String(problem) }));
  if (problem.request_id) box.append(make("div", { className: "small", textContent: `request ${problem.request_id}` }));
  box.hidden = false;
}

function chip(id, label, remove) {
  const button = make("button", { type: "button", textContent: "×", "aria-label": `Remove ${label}` });
  button.addEventListener("click", remove);
  return make("span", { className: "chip" }, make("span", { textContent: label }), button);
}

function showControls() {
  for (const tab of byId("tabs").children) {
    const chosen = tab.dataset.placement === state.placement;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
  }
  byId("cart-count").hidden = !state.cart.length;
  byId("cart-count").textContent = state.cart.length;
  const context = byId("context");
  context.hidden = true;
  if (state.placement === "item" && state.item) {
    context.replaceChildren("Looking at", chip(state.item, titleOf(state.item), () => go({ placement: "home", item: null })));
    context.hidden = false;
  } else if (state.placement === "cart" && state.cart.length) {
    context.replaceChildren("In the cart", ...state.cart.map((id) => chip(id, titleOf(id), () => removeFromCart(id))));
    context.hidden = false;
  } else if (state.placement === "category" && state.categories.size) {
    const names = [...new Set([...state.categories, state.category].filter(Boolean))].sort();
    const select = make("select", { "aria-label": "Category" }, ...names.map((name) =>
      make("option", { value: name, textContent: name, selected: name === state.category })));
    select.addEventListener("change", () => go({ category: select.value }));
    context.replaceChildren("Category", select);
    context.hidden = false;
  }
}

// What a person does.

function go(change) {
  Object.assign(state, change);
  history.pushState(null, "", address());
  return refresh();
}

async function openItem(item) {
  await tell("view", item);
  await go({ placement: "item", item: item.id });
  byId("shelf").focus({ preventScroll: true });
  byId("shelf").scrollIntoView({ block: "start" });
}

async function addToCart(item) {
  if (!state.cart.includes(item.id)) state.cart.push(item.id);
  await tell("add_to_cart", item);
  await go({});
}

async function removeFromCart(id) {
  state.cart = state.cart.filter((one) => one !== id);
  await tell("remove_from_cart", { id });
  await go({});
}

async function purchase(item) {
  state.cart = state.cart.filter((one) => one !== item.id);
  await tell("purchase", item);
  await go({});
}

function address() {
  const query = new URLSearchParams({ placement: state.placement });
  if (state.userId) query.set("user", state.userId);
  if (state.item) query.set("item", state.item);
  if (state.cart.length) query.set("cart", JSON.stringify(state.cart));
  if (state.category) query.set("category", state.category);
  return `/?${query}`;
}

function readAddress() {
  const query = new URLSearchParams(location.search);
  const placement = query.get("placement");
  let cart = [];
  try { cart = JSON.parse(query.get("cart") || "[]"); } catch { /* someone else's address: an empty cart */ }
  Object.assign(state, {
    placement: PLACEMENTS.includes(placement) ? placement : "home", userId: query.get("user"), item: query.get("item"),
    category: query.get("category"), cart: Array.isArray(cart) ? cart.filter((id) => typeof id === "string") : [],
  });
}

// Beginning.

const TYPED = "typed";
async function fillShoppers() {
  const select = byId("shopper");
  let samples = [];
  try { samples = (await call("GET", "/storefront/shoppers")).document; } catch { /* the page works without samples */ }
  const options = samples.filter((one) => one && typeof one.user_id === "string").map((one) => {
    const liked = Array.isArray(one.last_items) && one.last_items.length ? ` · last: ${one.last_items.slice(0, 2).join(", ")}` : "";
    return make("option", { value: `u:${one.user_id}`, textContent: `${one.label || `${one.user_id} · ${one.events ?? "?"} events`}${liked}` });
  });
  select.replaceChildren(make("option", { value: "", textContent: "Anonymous: a new visitor" }), ...options,
    make("option", { value: TYPED, textContent: "Type a user id…" }));
  showShopper();
}

function showShopper() {
  const select = byId("shopper");
  const known = [...select.options].some((option) => option.value === `u:${state.userId}`);
  select.value = !state.userId ? "" : known ? `u:${state.userId}` : TYPED;
  byId("typed-field").hidden = select.value !== TYPED;
  byId("typed").value = state.userId || "";
}

function chooseShopper(userId) {
  // Another shopper has another basket and another history: nothing of the one before may stay.
  state.visitorId = `page-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
  state.watermark = null;
  state.ranks = new Map();
  state.shelfName = "";
  return go({ userId, cart: [] });
}

function listen() {
  byId("shopper").addEventListener("change", (event) => {
    const { value } = event.target;
    byId("typed-field").hidden = value !== TYPED;
    if (value === TYPED) byId("typed").focus();
    else chooseShopper(value ? value.slice(2) : null);
  });
  byId("typed").addEventListener("change", (event) => chooseShopper(event.target.value.trim() || null));
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["count", "diversity", "explain"]) byId(id).addEventListener("change", refresh);
  byId("again").addEventListener("click", refresh);
  byId("tabs").addEventListener("click", (event) => {
    const tab = event.target.closest("[data-placement]");
    if (tab) go({ placement: tab.dataset.placement });
  });
  byId("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = (PLACEMENTS.indexOf(state.placement) + step + PLACEMENTS.length) % PLACEMENTS.length;
    go({ placement: PLACEMENTS[at] });
    byId("tabs").children[at].focus();
  });
  byId("copy").addEventListener("click", async () => {
    let said = "Copied";
    try {
      await navigator.clipboard.writeText(byId("curl").textContent);
    } catch {
      getSelection().selectAllChildren(byId("curl")); // no clipboard without https: mark it for Ctrl-C
      said = "Press Ctrl-C";
    }
    byId("copy").textContent = said;
    setTimeout(() => { byId("copy").textContent = "Copy"; }, 1500);
  });
  addEventListener("popstate", () => { readAddress(); showShopper(); refresh(); });
}

async function showHealth() {
  const box = byId("health");
  try {
    const { document: answer } = await call("GET", "/readyz");
    const weak = Object.entries(answer.checks).filter(([, found]) => found !== "ok").map(([name]) => words(name));
    box.className = weak.length ? "health warn" : "health ok";
    byId("health-text").textContent = weak.length ? `ready, without ${weak.join(", ")}` : "ready";
  } catch (problem) {
    box.className = "health down";
    byId("health-text").textContent = problem.title || "down";
  }
}

readAddress();
listen();
showHealth();
setInterval(() => { if (!document.hidden) showHealth(); }, 15000);
fillShoppers().then(refresh);
