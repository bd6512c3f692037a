// Seconds for people: 75.25 -> 1:15.3
export function clock(seconds, digits = 1) {
  const tenths = 10 ** digits;
  const whole = Math.round(seconds * tenths) / tenths;
  const minutes = Math.floor(whole / 60);
  const rest = (whole - 60 * minutes).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return minutes < 60
    ? `${minutes}:${rest}`
    : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

export function span([from, to]) {
  return to - from < 0.05 ? clock(from) : `${clock(from)} – ${clock(to)}`;
}

export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  const steps = ["KB", "MB", "GB"];
  let value = bytes / 1024;
  let step = 0;
  while (value >= 1000 && step < 2) {
    value /= 1024;
    step += 1;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${steps[step]}`;
}

const BEFORE = ["queue", "encode", "prefill"]; // the stages up to the first token

/** Seconds of an answer by stage -> to its first token. */
export function toFirstToken(seconds) {
  return BEFORE.reduce((sum, stage) => sum + (seconds[stage] ?? 0), 0);
}

export function took(seconds) {
  return seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`;
}
