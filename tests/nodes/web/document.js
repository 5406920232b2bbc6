// A small stand-in for a browser's document: enough for the page's script, and nothing that parses markup.
class Element {
  constructor(tag) { this.tag = tag; this.children = []; this.attributes = {}; this.style = {}; this.className = ""; this.hidden = false; this.listeners = {}; }
  append(...more) { for (const one of more) this.children.push(one instanceof Element ? one : String(one)); }
  replaceChildren(...more) { this.children = []; this.append(...more); }
  setAttribute(name, value) { this.attributes[name] = String(value); }
  addEventListener(name, listener) { this.listeners[name] = listener; }
  get textContent() { return this.children.map(c => c instanceof Element ? c.textContent : c).join(""); }
  set textContent(text) { this.children = [String(text)]; }
  all(test) { return [...(test(this) ? [this] : []), ...this.children.flatMap(c => c instanceof Element ? c.all(test) : [])]; }
}
const ids = {}, errors = [];
const document = {
  hidden: false, title: "",
  createElement: tag => new Element(tag), createElementNS: (_, tag) => new Element(tag),
  getElementById: id => { if (!IDS.includes(id)) throw new Error("no element " + id); return ids[id] ??= new Element("div"); },
};
console.error = (...what) => errors.push(what.join(" "));
let answers = STATUSES.slice(), polls = 0;
const fetch = async () => { polls += 1; const next = answers.shift(); if (next === null) throw new Error("gone"); return { ok: true, json: async () => next }; };
const AbortSignal = { timeout: () => null };
const setTimeout = (again, ms) => { if (answers.length) again(); else finish(); };
function finish() {
  const rooms = ids.queries.all(e => e.className.startsWith("lane ")).map(e => [e.className, e.children[0].style]);
  console.log(JSON.stringify({ errors, polls, title: document.title, rooms,
    tags: [...new Set(Object.values(ids).flatMap(e => e.all(() => true)).map(e => e.tag))],
    text: Object.fromEntries(Object.entries(ids).map(([id, e]) => [id, e.textContent])), light: ids.light.className, notesHidden: ids.notes.hidden }));
}
