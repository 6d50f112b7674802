// Search of pages that are opened as files: browsers start no worker from a file, so that a hidden
// frame takes its place. Served pages use the browser's own workers.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      this.frame = frame
      const inner = frame.contentWindow
      inner.document.open()
      inner.document.write(
        "<!doctype html><script>" +
        "window.importScripts = (...urls) => Promise.all(urls.map(url => new Promise((done, fail) => {" +
        "const script = document.createElement('script'); script.src = url;" +
        "script.onload = done; script.onerror = fail; document.head.appendChild(script) })));" +
        "window.postMessage = data => window.answer(data)" +
        "</" + "script>"
      )
      inner.document.close()
      inner.answer = data => {
        const event = new MessageEvent("message", { data })
        this.dispatchEvent(event)
        if (this.onmessage) this.onmessage(event)
      }
      this.ready = new Promise((done, fail) => {
        const script = inner.document.createElement("script")
        script.src = url
        script.onload = done
        script.onerror = fail
        inner.document.head.appendChild(script)
      })
    }

    postMessage(data) {
      this.ready.then(() =>
        this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
      )
    }

    terminate() {
      this.frame.remove()
    }
  }
}
