(() => {
  const root = document.documentElement, main = document.querySelector("main"), stale = document.getElementById("stale");
  const framed = window.parent !== window;
  let fresh = Date.now(), shown = main.innerHTML;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const theme = () => {
    let wanted = dark.matches ? "dark" : "light";
    try {
      const names = framed ? window.parent.document.documentElement.classList : [];
      if (framed && (names.contains("dark") || names.contains("light"))) wanted = names.contains("dark") ? "dark" : "light";
    } catch { /* another origin: its theme is its own */ }
    if (root.dataset.theme !== wanted) root.dataset.theme = wanted;
  };
  theme();
  dark.addEventListener("change", theme);
  if (framed) new MutationObserver(theme).observe(window.parent.document.documentElement, { attributes: true, attributeFilter: ["class"] });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-airflow]");
    if (!link || !framed) return;
    event.preventDefault(); // Airflow's frame lets no link leave it: the page around it follows the link instead
    const outer = window.parent.document.createElement("a");
    outer.href = link.href;
    window.parent.document.body.append(outer);
    outer.click();
    outer.remove();
  });
  const say = (text) => {
    stale.hidden = !text;
    stale.textContent = text;
  };
  const refresh = async () => {
    let why = "the server does not answer";
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store", signal: AbortSignal.timeout(8000) });
      if (answer.headers.get("X-K2-Page") && answer.status !== 401) {
        const text = await answer.text();
        const part = text.slice(text.indexOf("<main"), text.lastIndexOf("</main>")); // not its style and script, which carry another nonce
        const html = new DOMParser().parseFromString(part, "text/html").querySelector("main").innerHTML;
        if (html !== shown) main.innerHTML = shown = html;
        fresh = Date.now();
        return say("");
      }
      why = answer.status === 401 ? "your login has ended: reload this page" : `the server answered with ${answer.status}`;
    } catch { /* said below */ }
    say(`Not refreshed for ${Math.round((Date.now() - fresh) / 1000)} s: ${why}. What you see is as old as that.`);
  };
  const again = () => setTimeout(async () => { if (!document.hidden && !String(window.getSelection())) await refresh(); again(); }, 5000);
  if (main.dataset.refresh) again();
  document.addEventListener("visibilitychange", () => { if (!document.hidden && main.dataset.refresh) refresh(); });
})();
