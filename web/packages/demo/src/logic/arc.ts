/** An arc from the left over the top, covering `share` of a half circle. */
export function arcPath(x: number, y: number, radius: number, share: number): string {
  if (share <= 0) return `M${x - radius} ${y}`;
  const angle = Math.PI * (1 - share);
  const [endX, endY] = [x + radius * Math.cos(angle), y - radius * Math.sin(angle)];
  return `M${x - radius} ${y}A${radius} ${radius} 0 0 1 ${endX.toFixed(2)} ${endY.toFixed(2)}`;
}
