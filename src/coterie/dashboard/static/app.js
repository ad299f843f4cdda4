// What every page can do: the theme, copying tables, and lists that change as one types.
// Without it each form is still sent and each link followed.

const root = document.documentElement;

document.getElementById("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = root.dataset.theme ?? (dark ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
  document.dispatchEvent(new CustomEvent("theme"));
});

const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

// A spreadsheet would run a text that begins like a formula: such a one is marked as text.
const plain = (text) => (/^[=+\-@\t\r]/.test(text) && isNaN(text) ? `'${text}` : text);

const valueOf = (cell) => quoted(plain(cell.dataset.value ?? cell.textContent.trim()));

const csv = (table) => [...table.rows].map((row) => [...row.cells].map(valueOf).join(",")).join("\n");

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(csv(document.getElementById(button.dataset.copy)) + "\n");
  const said = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = said), 1500);
});

// A form or link with data-swap="ID …" replaces those parts of the page by what the server answers
// for its address, and leaves the rest as it is. What had the focus has it again, by its id.
let asking = null;

const put = (id, page) => {
  const there = document.getElementById(id);
  const fresh = page.getElementById(id);
  // A part that is read out when it changes must stay the same element.
  if (there.hasAttribute("aria-live")) there.replaceChildren(...fresh.childNodes);
  else there.replaceWith(fresh);
};

async function swap(address, ids, keep = true) {
  asking?.abort();
  const mine = (asking = new AbortController());
  try {
    const answer = await fetch(address, { signal: mine.signal });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const held = document.activeElement;
    if (!ids.split(" ").every((id) => page.getElementById(id))) return location.assign(address);
    ids.split(" ").forEach((id) => put(id, page));
    if (!held.isConnected) document.getElementById(held.id || held.dataset.focus)?.focus();
    if (keep) history.replaceState(null, "", address);
    document.dispatchEvent(new CustomEvent("swapped"));
    return true;
  } catch (error) {
    if (keep && error.name !== "AbortError") location.assign(address);
  } finally {
    if (asking === mine) asking = null;
  }
}

const addressOf = (form) => {
  const given = [...new FormData(form)].filter(([, value]) => value !== "");
  const query = new URLSearchParams(given).toString();
  return form.getAttribute("action") + (query ? `?${query}` : "");
};

// What was typed is sent a moment later, and again if a click came between.
let typed = null;
let waiting = null;

const send = async () => {
  waiting = null;
  if (typed && (await swap(addressOf(typed), typed.dataset.swap)) && !waiting) typed = null;
};

const stopWaiting = () => {
  clearTimeout(waiting);
  waiting = null;
};

document.addEventListener("input", (event) => {
  const form = event.target.form;
  if (!form?.dataset.swap) return;
  typed = form;
  stopWaiting();
  waiting = setTimeout(send, 120);
});

document.addEventListener("submit", (event) => {
  if (!event.target.dataset.swap) return;
  event.preventDefault();
  typed = event.target;
  stopWaiting();
  send();
});

// A link may say what has the focus after Enter (data-focus), and what is to be seen (data-show).
document.addEventListener("click", async (event) => {
  const anchor = event.target.closest("a[data-swap]");
  if (!anchor || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  stopWaiting();
  const { focus, show } = anchor.dataset;
  if (!(await swap(anchor.getAttribute("href"), anchor.dataset.swap))) return;
  if (focus && event.detail === 0) document.getElementById(focus)?.select();
  if (show) document.getElementById(show).scrollIntoView({ block: "nearest" });
  send();
});

// From a search box, arrows go through what it found: form data-arrows="ID".
document.addEventListener("keydown", (event) => {
  const form = document.querySelector("form[data-arrows]");
  if (!form || !["ArrowDown", "ArrowUp"].includes(event.key)) return;
  const box = form.querySelector("input[type=search]");
  const links = [...document.querySelectorAll(`#${form.dataset.arrows} a`)];
  const at = links.indexOf(document.activeElement);
  if (at < 0 && document.activeElement !== box) return;
  event.preventDefault();
  const next = at + (event.key === "ArrowDown" ? 1 : -1);
  (next < 0 ? box : links[Math.min(next, links.length - 1)])?.focus();
});

// What is still being read is asked for again: data-again="ID …".
let looking = null;

const lookAgain = () => {
  clearTimeout(looking);
  const parts = [...document.querySelectorAll("[data-again]")].map((one) => one.dataset.again);
  const ids = [...new Set(parts.flatMap((one) => one.split(" ")))].join(" ");
  const look = () => (asking ? lookAgain() : swap("", ids, false));
  if (ids) looking = setTimeout(look, 1000);
};

document.addEventListener("swapped", lookAgain);
lookAgain();
