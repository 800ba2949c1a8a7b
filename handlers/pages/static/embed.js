// The widget: a button, and behind it the bot's page in a frame. Nothing is shown for a bot that may not be
// talked to from here.
(() => {
  const own = document.currentScript;
  const key = own?.dataset.bot;
  if (!key || !own.isConnected) return;
  const base = new URL(own.src).origin;

  const build = ({ name, theme }) => {
    const side = theme.position === "left" ? "left" : "right";
    const fixed = { position: "fixed", [side]: "20px", zIndex: "2147483000", border: "0" };
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.setAttribute("aria-expanded", "false");
    Object.assign(button.style, fixed, {
      bottom: "20px",
      padding: "12px 20px",
      borderRadius: "24px",
      background: theme.primary_color || "#0b5fff",
      color: theme.text_color || "#ffffff",
      font: "16px sans-serif",
      cursor: "pointer",
    });
    const frame = document.createElement("iframe");
    frame.title = name;
    frame.hidden = true;
    Object.assign(frame.style, fixed, {
      bottom: "80px",
      width: "min(400px, calc(100vw - 40px))",
      height: "min(600px, calc(100vh - 100px))",
      borderRadius: `${Number(theme.radius ?? 12)}px`,
      boxShadow: "0 4px 24px rgb(0 0 0 / 25%)",
      background: theme.background_color || "#ffffff",
    });
    button.addEventListener("click", () => {
      if (!frame.src) frame.src = `${base}/embed/${key}`;
      frame.hidden = !frame.hidden;
      button.setAttribute("aria-expanded", String(!frame.hidden));
    });
    document.body.append(frame, button);
    // Pages that are built by scripts take theirs away by removing this one.
    const gone = new MutationObserver(() => {
      if (own.isConnected) return;
      gone.disconnect();
      frame.remove();
      button.remove();
    });
    gone.observe(document.documentElement, { childList: true, subtree: true });
  };

  fetch(`${base}/api/v1/embed/${key}/config`)
    .then((answer) => (answer.ok ? answer.json() : null))
    .then((config) => config && own.isConnected && build(config))
    .catch(() => {}); // the server does not answer: the page does without
})();
