// The theme opens the navigation of a narrow window, and its search, by labels, which no keyboard
// reaches. Here they become buttons to it; those of the navigation that are hidden are passed over.
document.addEventListener("DOMContentLoaded", () => {
  const drawer = document.getElementById("__drawer")
  const sidebar = document.querySelector(".md-sidebar--primary")
  const narrow = matchMedia("(max-width: 76.234375em)")

  for (const label of document.querySelectorAll(".md-header label[for]")) {
    if (label.tabIndex < 0) label.tabIndex = 0
    label.setAttribute("role", "button")
    const title = label.title || (label.htmlFor === "__drawer" ? "Navigation" : "Search")
    label.setAttribute("aria-label", title)
    label.addEventListener("keydown", event => {
      if (event.key !== "Enter" && event.key !== " ") return
      event.preventDefault()
      event.stopPropagation()
      label.click()
    })
  }

  // A drawer that is closed lies beside the window: nothing in it takes the focus.
  const update = () => { sidebar.inert = narrow.matches && !drawer.checked }
  if (!drawer || !sidebar) return
  drawer.addEventListener("change", () => {
    update()
    if (drawer.checked && narrow.matches) sidebar.querySelector("a, label[tabindex]")?.focus()
  })
  narrow.addEventListener("change", update)
  update()
  document.addEventListener("keydown", event => {
    if (event.key === "Escape" && drawer.checked) drawer.click()
  })
})
