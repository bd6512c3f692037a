// One WebSocket to one stream that comes back by itself, longer apart each time.
const FIRST = 500;
const LONGEST = 15000;

export class Link {
  /** on(message): each JSON event. state(word, text): on, wait or off. begin(link): after each connection. */
  constructor(name, { on, state, begin }) {
    this.name = name;
    this.on = on;
    this.state = state;
    this.begin = begin;
    this.ended = false;
    this.wait = FIRST;
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.state("wait", "connecting");
    const socket = new WebSocket(`${scheme}://${location.host}/ws/streams/${encodeURIComponent(this.name)}`, ["videoprune"]);
    this.socket = socket;
    socket.onopen = () => {
      this.wait = FIRST;
      this.state("on", "connected");
      this.begin(this);
    };
    socket.onmessage = (event) => {
      if (this.socket === socket) this.on(JSON.parse(event.data));
    };
    socket.onclose = (event) => {
      if (this.ended || this.socket !== socket) return;
      const seconds = (this.wait / 1000).toFixed(this.wait < 1000 ? 1 : 0);
      this.state("wait", `${event.reason || "connection lost"}, again in ${seconds} s`);
      this.timer = setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(LONGEST, this.wait * 2);
    };
  }

  get ready() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  /** Bytes that are not sent yet. */
  get behind() {
    return this.socket.bufferedAmount;
  }

  say(message) {
    if (!this.ready) return false;
    this.socket.send(message instanceof Blob ? message : JSON.stringify(message));
    return true;
  }

  end() {
    this.ended = true;
    clearTimeout(this.timer);
    this.socket.close(1000);
    this.state("off", "not connected");
  }
}
