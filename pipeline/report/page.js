(() => {
  const map = document.querySelector("svg.map");
  const box = document.getElementById("hover");
  const thumb = box.querySelector(".thumb");
  const words = box.querySelector(".words");
  let current = null;

  const show = (circle, event) => {
    if (current) current.classList.remove("on");
    current = circle;
    circle.classList.add("on");
    thumb.style.setProperty("--x", circle.dataset.x);
    thumb.style.setProperty("--y", circle.dataset.y);
    words.textContent = circle.dataset.t;
    box.hidden = false;
    const frame = map.parentElement.getBoundingClientRect();
    const x = event.clientX - frame.left;
    const y = event.clientY - frame.top;
    box.style.left = Math.max(0, Math.min(x + 14, frame.width - 116)) + "px";
    box.style.top = Math.max(0, y - 130) + "px";
  };
  const hide = () => {
    if (current) current.classList.remove("on");
    current = null;
    box.hidden = true;
  };
  const follow = (event) => (event.target.tagName === "circle" ? show(event.target, event) : hide());
  map.addEventListener("pointermove", follow);
  map.addEventListener("pointerdown", follow);
  map.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    const group = map.classList.contains("picked") ? ".points.on circle" : ".points circle";
    const circles = [...map.querySelectorAll(group)];
    const next = circles[(circles.indexOf(current) + step + circles.length) % circles.length];
    const place = next.getBoundingClientRect();
    show(next, { clientX: place.x, clientY: place.y });
  });
  map.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());

  const buttons = [...document.querySelectorAll(".pick button")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(on && other === button)));
      map.classList.toggle("picked", on);
      document.querySelectorAll(".map .points").forEach((group) =>
        group.classList.toggle("on", on && group.id === "class-" + button.dataset.class));
    });
  }
  window.addEventListener("beforeprint", () =>
    document.querySelectorAll("details").forEach((part) => part.setAttribute("open", "")));
})();
