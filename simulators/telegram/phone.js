"use strict";
// The phone's script: asks for the view about twice a second and shows what changed.
const byId = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const link = location.pathname.match(/\/t\.me\/([^/]+)\/?$/);
const root = location.pathname.replace(/t\.me\/[^/]+\/?$/, "").replace(/\/?$/, "/");
const POLL_MS = 500, HIDDEN_POLL_MS = 4000;
const now = {
  person: query.get("person") || localStorage.getItem("phone.person") || "",
  chat: link ? decodeURIComponent(link[1]) : query.get("chat") || "",
  payload: query.get("start"),
  version: "", view: null, timer: 0, turn: 0, shown: "", typingTimer: 0, isAdding: false,
};

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") element.addEventListener("click", value);
    else if (value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function avatar(name, element = make("span", { "aria-hidden": "true" })) {
  const words = name.trim().split(/\s+/);
  const letters = [...(words[0] || "?")][0] + (words[1] ? [...words[1]][0] : "");
  let sum = 0;
  for (const letter of name) sum += letter.codePointAt(0);
  element.className = `avatar hue-${sum % 7}`;
  element.textContent = letters.toUpperCase();
  return element;
}

function verified() {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "tick");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "Verified");
  for (const shape of ["M12 1.5l2.7 2.2 3.4-.4 1.1 3.300 3 1.800-.9 3.400.9 3.400-3 1.800-1.100 3.300-3.400-.4L12 22.500l-2.700-2.200-3.400.4-1.100-3.300-3-1.800.9-3.400-.9-3.400 3-1.800 1.100-3.300 3.400.4z", "M7.800 12.200l2.900 2.900 5.500-5.800"]) {
    const path = document.createElementNS(space, "path");
    path.setAttribute("d", shape);
    svg.append(path);
  }
  return svg;
}

let toastTimer = 0;
function toast(text) {
  byId("toast").textContent = text;
  byId("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { byId("toast").hidden = true; }, 2200);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied to clipboard");
  } catch {
    toast("Select the text and copy it by hand");
  }
}

// Asking and telling

async function post(path, body) {
  const response = await fetch(root + path, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || `The phone answered ${response.status}.`);
  refresh();
  return answer;
}

async function tell(path, body) {
  try {
    return await post(path, { person: now.person, chat: now.chat, ...body });
  } catch (error) {
    toast(error.message);
    return null;
  }
}

async function refresh() {
  clearTimeout(now.timer);
  const turn = ++now.turn;
  const asked = new URLSearchParams({ person: now.person, chat: now.chat, since: now.version });
  try {
    const response = await fetch(`${root}api/view?${asked}`);
    if (!response.ok) throw new Error(String(response.status));
    const view = await response.json();
    if (turn !== now.turn) return;
    connected(true);
    if (view.people) show(view);
  } catch {
    if (turn !== now.turn) return;
    connected(false);
  }
  now.timer = setTimeout(refresh, document.hidden ? HIDDEN_POLL_MS : POLL_MS);
}

function connected(is) {
  byId("status").textContent = is ? "A messenger that stays on this machine" : "Connecting…";
  byId("status").classList.toggle("offline", !is);
}

// Where we are

function address() {
  const parts = new URLSearchParams();
  if (now.chat) parts.set("chat", now.chat);
  if (now.person) parts.set("person", now.person);
  if (now.payload !== null) parts.set("start", now.payload);
  return `${root}?${parts}`;
}

function go({ chat = now.chat, person = now.person, payload = null }) {
  Object.assign(now, { chat, person: String(person), payload, version: "" });
  localStorage.setItem("phone.person", now.person);
  history.pushState(null, "", address());
  refresh();
}

addEventListener("popstate", () => {
  const place = new URLSearchParams(location.search);
  now.chat = place.get("chat") || "";
  now.person = place.get("person") || now.person;
  now.payload = place.get("start");
  now.version = "";
  refresh();
});

// Showing

function show(view) {
  now.version = view.version;
  now.view = view;
  now.person = String(view.person.id);
  if (view.chat) now.chat = view.chat.username;
  history.replaceState(null, "", address());
  showPeople(view);
  showChats(view);
  showConversation(view);
}

function showPeople(view) {
  const people = view.people.map((one) => make("button", {
    class: "person", type: "button", "data-person": one.id, title: `${one.name}, id ${one.id}`,
    "aria-pressed": String(String(one.id) === now.person), onclick: () => go({ person: one.id }),
  }, avatar(one.name), make("span", {}, one.name.split(" ")[0])));
  const plus = make("span", { "aria-hidden": "true", class: "avatar" }, "+");
  const add = make("button", {
    class: "person add", type: "button", id: "new-person", title: "Add a person",
    onclick: () => { toggleAdding(!now.isAdding); },
  }, plus, make("span", {}, "Add"));
  byId("people").replaceChildren(...people, add);
  byId("person-label").textContent = view.person.name;
  byId("person-id").textContent = view.person.id;
}

function toggleAdding(is) {
  now.isAdding = is;
  byId("add-person-form").hidden = !is;
  if (is) byId("person-name").focus();
}

function chatRow(chat, last) {
  const name = make("span", { class: "name" }, make("span", {}, chat.name));
  if (chat.is_official) name.append(verified());
  const isCurrent = chat.username === now.chat;
  return make("a", {
    class: "chat-row", "data-chat": chat.username, "aria-current": isCurrent ? "page" : undefined,
    href: `${root}?${new URLSearchParams({ chat: chat.username, person: now.person })}`,
    onclick: (event) => { event.preventDefault(); byId("search").value = ""; go({ chat: chat.username }); },
  }, avatar(chat.name), name, make("time", {}, last ? shortTime(last.at) : ""),
  make("span", { class: "last" }, last ? (last.is_from_bot ? "" : "You: ") + last.text.replace(/\s+/g, " ").slice(0, 120) : `@${chat.username}`));
}

function showChats(view) {
  const wanted = byId("search").value.trim().toLowerCase().replace(/^@/, "").replace(/^(https?:\/\/)?t\.me\//, "");
  const fits = (one) => `${one.name} ${one.username}`.toLowerCase().includes(wanted);
  const rows = view.chats.filter(fits).map((chat) => chatRow(chat, chat.last));
  if (wanted) {
    const known = new Set(view.chats.map((chat) => chat.username));
    const others = view.bots.filter((bot) => fits(bot) && !known.has(bot.username));
    if (others.length) rows.push(make("p", { class: "group" }, "Global search"), ...others.map((bot) => chatRow(bot)));
    if (!rows.length) rows.push(make("p", { class: "nothing" }, "No results"));
  }
  byId("chats").replaceChildren(...rows);
}

function showConversation(view) {
  const chat = view.chat;
  byId("app").classList.toggle("in-chat", Boolean(now.chat));
  byId("conversation").hidden = !chat;
  byId("empty").hidden = Boolean(chat);
  byId("empty-text").textContent = now.chat ? `Nobody is called @${now.chat} here` : "Select a chat to start messaging";
  document.title = chat ? `${chat.name} · Phone` : "Phone";
  if (!chat) { now.shown = ""; return; }
  avatar(chat.name, byId("chat-avatar"));
  byId("chat-title").replaceChildren(chat.name, ...(chat.is_official ? [verified()] : []));
  byId("block").hidden = chat.is_official || chat.state !== "started";
  const box = byId("messages");
  const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
  showTyping(chat);
  showComposer(chat);
  showMessages(chat, isAtEnd);
}

function showTyping(chat) {
  const isTyping = chat.typing_seconds > 0;
  const line = byId("chat-subtitle");
  line.classList.toggle("typing", isTyping);
  if (isTyping) line.replaceChildren("typing", make("span", { class: "dots", id: "typing" }, make("i"), make("i"), make("i")));
  else line.textContent = chat.is_official ? "bot · verified" : `bot · @${chat.username}`;
  clearTimeout(now.typingTimer);
  if (isTyping) now.typingTimer = setTimeout(() => showTyping({ ...chat, typing_seconds: 0 }), chat.typing_seconds * 1000);
}

function showMessages(chat, isAtEnd) {
  const box = byId("messages");
  const key = `${now.person}/${chat.username}`;
  const isNew = now.shown !== key;
  const before = new Set([...box.querySelectorAll("[data-message]")].map((one) => one.dataset.message));
  const children = [];
  chat.messages.forEach((message, at) => {
    const previous = chat.messages[at - 1], next = chat.messages[at + 1];
    if (!previous || dayOf(previous.at) !== dayOf(message.at)) children.push(make("div", { class: "day" }, dayOf(message.at)));
    const isFresh = !isNew && !before.has(String(message.id));
    children.push(bubble(message, { isLast: !next || next.is_from_bot !== message.is_from_bot, isFresh }));
    if (message.buttons.length) children.push(buttons(message));
  });
  if (!children.length) {
    const about = chat.is_official ? "BotFather is the one bot to rule them all. Use it to create new bot accounts and manage your existing bots." : chat.description;
    children.push(make("div", { class: "about" }, make("b", {}, about ? "What can this bot do?" : "No messages here yet…"), make("p", {}, about || "Press START to write to this bot.")));
  }
  const chosen = getSelection();
  if (!isNew && chosen && !chosen.isCollapsed && box.contains(chosen.anchorNode) && before.size === chat.messages.length) return;
  box.replaceChildren(...children);
  if (isNew || isAtEnd || (chat.messages.at(-1) && !chat.messages.at(-1).is_from_bot)) box.scrollTop = box.scrollHeight;
  now.shown = key;
}

function bubble(message, { isLast, isFresh }) {
  const kind = message.is_from_bot ? "incoming" : "outgoing";
  const time = `${message.is_edited ? "edited " : ""}${clock(message.at)}${message.is_from_bot ? "" : " ✓"}`;
  return make("div", { class: `bubble ${kind}${isLast ? " last" : ""}${isFresh ? " fresh" : ""}`, "data-message": message.id },
    make("span", { class: "text" }, ...rich(message.text, message.entities)), make("span", { class: "meta" }, time));
}

function buttons(message) {
  const rows = message.buttons.map((row) => make("div", {}, ...row.map((one) => {
    const url = one.url && safe(one.url);
    if (url) return make("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, one.text);
    return make("button", { type: "button", onclick: () => tell("api/presses", { message: message.id, data: one.callback_data || "" }) }, one.text);
  })));
  return make("div", { class: "buttons" }, ...rows);
}

// Formatted text: entities count UTF-16 units, as JavaScript's strings do.
function rich(text, entities, from = 0, to = text.length) {
  const sorted = [...entities].sort((a, b) => a.offset - b.offset || b.length - a.length);
  const parts = [];
  let at = from;
  sorted.forEach((one, index) => {
    const end = one.offset + one.length;
    if (one.offset < at || end > to) return;
    if (one.offset > at) parts.push(text.slice(at, one.offset));
    const inner = sorted.slice(index + 1).filter((other) => other.offset >= one.offset && other.offset + other.length <= end);
    parts.push(marked(one, text.slice(one.offset, end), rich(text, inner, one.offset, end)));
    at = end;
  });
  if (at < to) parts.push(text.slice(at, to));
  return parts;
}

const SIMPLE = { bold: "b", italic: "i", underline: "u", strikethrough: "s", blockquote: "blockquote", expandable_blockquote: "blockquote" };
function marked(entity, text, inner) {
  if (SIMPLE[entity.type]) return make(SIMPLE[entity.type], {}, ...inner);
  if (entity.type === "code") return make("code", { title: "Copy", onclick: () => copy(text) }, text);
  if (entity.type === "pre") return make("pre", {}, make("code", {}, text));
  if (entity.type === "spoiler") return make("span", { class: "spoiler" }, ...inner);
  if (entity.type === "url" || entity.type === "text_link") return anchor(entity.url || text, inner);
  if (entity.type === "mention") return anchor(`https://t.me/${text.slice(1)}`, inner);
  if (entity.type === "bot_command") return make("a", { role: "button", tabindex: "0", onclick: () => tell("api/messages", { text }) }, text);
  return make("span", {}, ...inner);
}

function safe(address) {
  const full = /^[a-z][a-z0-9+.-]*:/i.test(address) ? address : `https://${address}`;
  return /^(https?|mailto):/i.test(full) ? full : "";
}

function anchor(address, inner) {
  const url = safe(address);
  const bot = url.match(/^https?:\/\/t\.me\/(\w+)(?:\?start=([\w-]*))?$/);
  if (bot) {
    return make("a", { href: `${root}t.me/${bot[1]}`, onclick: (event) => { event.preventDefault(); go({ chat: bot[1], payload: bot[2] ?? null }); } }, ...inner);
  }
  return url ? make("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, ...inner) : make("span", {}, ...inner);
}

function showComposer(chat) {
  const isWaiting = chat.state !== "started" || now.payload !== null;
  byId("start-button").hidden = !isWaiting;
  byId("start-button").textContent = chat.state === "blocked" ? "RESTART BOT" : "START";
  byId("composer-form").hidden = isWaiting;
  byId("keyboard").hidden = isWaiting || !chat.keyboard.length;
  byId("keyboard").replaceChildren(...chat.keyboard.map((row) => make("div", {}, ...row.map((text) => make("button", { type: "button", onclick: () => tell("api/messages", { text }) }, text)))));
  if (isWaiting) byId("suggestions").hidden = true;
}

function showSuggestions() {
  const text = byId("message-input").value;
  const commands = text.startsWith("/") && !/\s/.test(text) && now.view?.chat ? now.view.chat.commands : [];
  const fitting = commands.filter((one) => `/${one.command}`.startsWith(text.toLowerCase()));
  byId("suggestions").hidden = !fitting.length;
  byId("suggestions").replaceChildren(...fitting.map((one) => make("button", {
    type: "button", onclick: () => { byId("message-input").value = ""; showSuggestions(); tell("api/messages", { text: `/${one.command}` }); },
  }, make("b", {}, `/${one.command}`), make("span", {}, one.description))));
}

// Times, in the words of the reader's language

const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
function dayOf(at) {
  const day = new Date(at * 1000);
  if (day.toDateString() === new Date().toDateString()) return "Today";
  return day.toLocaleDateString([], { day: "numeric", month: "long" });
}
const shortTime = (at) => dayOf(at) === "Today" ? clock(at) : new Date(at * 1000).toLocaleDateString([], { day: "numeric", month: "short" });

// What the person does

function fitInput() {
  const input = byId("message-input");
  input.style.height = "auto";
  input.style.height = `${Math.min(input.scrollHeight, 180)}px`;
}

byId("message-input").addEventListener("input", () => { fitInput(); showSuggestions(); });
byId("message-input").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    byId("composer-form").requestSubmit();
  }
});
byId("composer-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const input = byId("message-input"), text = input.value.trim();
  if (!text) return;
  input.value = "";
  fitInput();
  showSuggestions();
  if (!(await tell("api/messages", { text }))) { input.value = text; fitInput(); }
});
byId("start-button").addEventListener("click", async () => {
  const payload = now.payload || "";
  if (await tell("api/start", { payload })) {
    now.payload = null;
    now.version = "";
    refresh();
  }
});
byId("add-person-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = byId("person-name").value.trim();
  if (!name) return;
  try {
    const person = await post("api/people", { name });
    byId("person-name").value = "";
    toggleAdding(false);
    go({ person: person.id });
  } catch (error) {
    toast(error.message);
  }
});
byId("person-id").addEventListener("click", () => copy(now.person));
byId("block").addEventListener("click", () => tell("api/blocks", {}));
byId("back").addEventListener("click", () => go({ chat: "" }));
byId("search").addEventListener("input", () => now.view && showChats(now.view));
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
refresh();
