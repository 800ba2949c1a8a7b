// Sends the password with the token of the mail's link, which stands behind the "#" and so in no log.
const [kind, token] = location.hash.slice(1).split("=");
const target = kind === "reset" ? "password/reset/confirm" : "invitations/accept";
const form = document.querySelector("form");
const told = document.querySelector("[role=status]");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  form.querySelector("button").disabled = true;
  const body = JSON.stringify({ token: token || "none", password: form.querySelector("input").value });
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(`/api/v1/auth/${target}`, { method: "POST", headers, body });
    form.hidden = answer.ok;
    told.textContent = answer.ok ? "Your password is set. You can sign in now." : (await answer.json()).detail;
  } catch {
    told.textContent = "The server does not answer. Try again.";
  }
  form.querySelector("button").disabled = false;
});
