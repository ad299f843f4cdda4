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

const csv = (table) =>
  [...table.rows]
    .map((row) => [...row.cells].map((cell) => quoted(cell.dataset.value ?? cell.textContent.trim())).join(","))
    .join("\n");

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(csv(document.getElementById(button.dataset.copy)) + "\n");
  const said = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = said), 1500);
});

// A form or link with data-swap="ID …" replaces those parts of the page by what the server answers
// for its address, and leaves the rest as it is.
let asking = null;

async function swap(address, ids, keep = true) {
  asking?.abort();
  asking = new AbortController();
  try {
    const answer = await fetch(address, { signal: asking.signal });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const id of ids.split(" ")) {
      const fresh = page.getElementById(id);
      if (!fresh) return location.assign(address);
      document.getElementById(id).replaceWith(fresh);
    }
    if (keep) history.replaceState(null, "", address);
    document.dispatchEvent(new CustomEvent("swapped"));
  } catch (error) {
    if (error.name !== "AbortError") location.assign(address);
  }
}

const addressOf = (form) => {
  const given = [...new FormData(form)].filter(([, value]) => value !== "");
  const query = new URLSearchParams(given).toString();
  return form.getAttribute("action") + (query ? `?${query}` : "");
};

let waiting = null;

document.addEventListener("input", (event) => {
  const form = event.target.form;
  if (!form?.dataset.swap) return;
  clearTimeout(waiting);
  waiting = setTimeout(() => swap(addressOf(form), form.dataset.swap), 120);
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.swap) return;
  event.preventDefault();
  clearTimeout(waiting);
  swap(addressOf(form), form.dataset.swap);
});

document.addEventListener("click", (event) => {
  const anchor = event.target.closest("a[data-swap]");
  if (!anchor || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  swap(anchor.getAttribute("href"), anchor.dataset.swap);
});
