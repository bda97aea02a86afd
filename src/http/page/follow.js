// A scroller that stays at its end while what it shows grows, until someone scrolls up.

/** So close to the end is at the end. */
const NEAR_PX = 60;

export class Follower {
  #scroller;
  #changed;
  #following = true;
  #top = 0;

  /** `grows` are the elements whose size matters; `changed(following)` is told. */
  constructor(scroller, grows, changed = () => {}) {
    this.#scroller = scroller;
    this.#changed = changed;
    scroller.addEventListener("scroll", () => this.#scrolled());
    // Once a frame, whatever it was: a message, a picture that has come, a smaller window. Asking for
    // the height with each message would be a layout for each message.
    const observer = new ResizeObserver(() => {
      if (this.#following) this.#toEnd();
    });
    for (const element of [scroller, ...grows]) observer.observe(element);
  }

  get following() {
    return this.#following;
  }

  /** Goes to the end, and stays there. */
  follow() {
    this.#set(true);
    this.#toEnd();
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    if (scrollHeight - scrollTop - clientHeight < NEAR_PX) this.#set(true);
    // What grows below moves the end away: only going up means to stay there.
    else if (scrollTop < this.#top - 2) this.#set(false);
    this.#top = scrollTop;
  }

  #toEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  #set(following) {
    if (this.#following === following) return;
    this.#following = following;
    this.#changed(following);
  }
}
