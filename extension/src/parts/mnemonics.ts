/** What instructions do, in one sentence: shown when the pointer is on a line of assembly. Names without the part that says the kind of number. */

const NOTES: Record<string, string> = {
  vfmadd231: "fused multiply-add: destination += second × third, rounded once; 2 FLOPs per lane",
  vfmadd213: "fused multiply-add: destination = second × destination + third, rounded once; 2 FLOPs per lane",
  vfmadd132: "fused multiply-add: destination = destination × third + second, rounded once; 2 FLOPs per lane",
  vfnmadd231: "fused negated multiply-add: destination −= second × third, rounded once",
  vfnmadd213: "fused negated multiply-add: destination = −(second × destination) + third, rounded once",
  vfnmadd132: "fused negated multiply-add: destination = −(destination × third) + second, rounded once",
  vfmsub231: "fused multiply-subtract: destination = second × third − destination, rounded once",
  vfmsub213: "fused multiply-subtract: destination = second × destination − third, rounded once",
  vfmsub132: "fused multiply-subtract: destination = destination × third − second, rounded once",
  vadd: "adds", vsub: "subtracts", vmul: "multiplies", vdiv: "divides: slow, one result every several cycles",
  vsqrt: "square root: slow, one result every several cycles",
  vmax: "the larger one; of a NaN and a number the second operand", vmin: "the smaller one; of a NaN and a number the second operand",
  vmova: "moves whole registers, or memory whose address is a multiple of the vector's size",
  vmovu: "moves between registers and memory at any address",
  vmovnt: "streaming store: past the caches, so that the line need not be read first",
  vmovap: "moves whole registers, or aligned memory", vmovup: "moves between registers and memory at any address",
  vmovdqa: "moves integers, aligned", vmovdqu: "moves integers, at any address",
  vmovs: "moves one number", vmovss: "moves one float32", vmovsd: "moves one float64", vmovshdup: "copies the odd lanes onto the even ones", vmovsldup: "copies the even lanes onto the odd ones", vmovd: "moves 32 bits between a vector and a general register", vmovq: "moves 64 bits between a vector and a general register",
  vbroadcast: "copies one number from memory or a register into every lane",
  vpbroadcastb: "copies one byte into every lane", vpbroadcastw: "copies one 16-bit integer into every lane", vpbroadcastd: "copies one 32-bit integer into every lane", vpbroadcastq: "copies one 64-bit integer into every lane",
  vperm: "lanes in another order, chosen by an index vector", vpermilp: "lanes in another order, within each 128 bits",
  vpermt2: "picks lanes from two registers by an index vector", vpermi2: "picks lanes from two registers by an index vector",
  vunpckl: "interleaves the lower lanes of two registers: a step of a transpose", vunpckh: "interleaves the upper lanes of two registers: a step of a transpose",
  vshuf: "shuffles lanes of two registers", vshuff32x4: "shuffles quarters of two registers", vshuff64x2: "shuffles quarters of two registers",
  vinsertf128: "puts 128 bits into one half", vinsertf32x4: "puts 128 bits into one quarter", vinsertf64x4: "puts 256 bits into one half",
  vextractf128: "takes one half out", vextractf32x4: "takes one quarter out", vextractf64x4: "takes one half out", vextracti64x4: "takes one half out", vextracti128: "takes one half out", vextracti32x4: "takes one quarter out", vextractps: "takes one lane out", vpextr: "takes one integer out of a vector", vpinsr: "puts one integer into a vector",
  vpmovzx: "widens integers with zeros", vpmovsx: "widens integers with their signs",
  vinsertps: "puts one number into one lane", vblendm: "picks each lane from one of two registers, by a mask", vblendv: "picks each lane from one of two registers, by a mask",
  vgatherd: "gathers: one load per lane, at addresses from an index vector: slow, and hard to predict for the prefetcher", vgatherq: "gathers: one load per lane, at addresses from an index vector",
  vscatterd: "scatters: one store per lane, at addresses from an index vector", vscatterq: "scatters: one store per lane, at addresses from an index vector",
  vucomi: "compares two numbers, for the jump that follows", vcomi: "compares two numbers, for the jump that follows",
  vcmp: "compares: a mask with one bit per lane", vptestm: "which lanes have a common bit: a mask", vpcmp: "compares integers: a mask with one bit per lane",
  vand: "bits that both have", vandn: "bits that only the second has", vor: "bits that either has", vxor: "bits that differ; of a register with itself: sets it to zero",
  vpand: "bits that both have", vpor: "bits that either has", vpxor: "bits that differ; of a register with itself: sets it to zero", vpternlog: "any function of three bits, per bit",
  vpadd: "adds integers", vpsub: "subtracts integers", vpmull: "multiplies integers, lower half", vpmuludq: "multiplies 32-bit integers to 64 bits", vpsrl: "shifts right, zeros come in", vpsra: "shifts right, the sign comes in", vpsll: "shifts left", vpror: "rotates right", vprol: "rotates left",
  vcvtdq2: "integers to floats", vcvttps2dq: "floats to integers, towards zero", vcvtps2dq: "floats to integers, rounded", vcvtps2ph: "float32 to float16", vcvtph2ps: "float16 to float32", vcvtps2pd: "float32 to float64", vcvtpd2ps: "float64 to float32", vcvtss2sd: "float32 to float64", vcvtsd2ss: "float64 to float32", vcvtsi2ss: "integer to float32", vcvtneps2bf16: "float32 to bfloat16", vcvtudq2ps: "unsigned integers to float32",
  vdpbf16: "products of bfloat16 pairs, summed into float32 lanes", vrndscale: "rounds to whole numbers, or to a number of binary digits", vround: "rounds to whole numbers", vscalef: "times a power of two: the end of an exponential", vgetexp: "the exponent as a float", vgetmant: "the mantissa as a float", vrcp14: "reciprocal, 14 bits", vrsqrt14: "reciprocal square root, 14 bits",
  vhadd: "adds neighbouring lanes: the end of a reduction", vreduce: "what rounding leaves over", vzeroupper: "clears the upper halves of vector registers, before code that knows only the lower ones",
  kmov: "moves a mask", kand: "masks: both", kor: "masks: either", kxnor: "masks: equal; of one with itself: all lanes", kortest: "whether any lane is set", kshiftr: "shifts a mask",
  prefetcht0: "asks for a cache line ahead of its use, into all levels; a hint, never a fault", prefetcht1: "asks for a cache line ahead of its use, into L2", prefetchnta: "asks for a cache line that is used once", prefetchw: "asks for a cache line that will be written",
  lea: "computes an address, or any sum of a register, another one times 1, 2, 4 or 8, and a constant", mov: "moves 64 or 32 bits", movabs: "puts a 64-bit constant into a register", movl: "moves 32 bits", movss: "moves one float32", movslq: "widens 32 bits to 64, with the sign", movzbl: "widens a byte with zeros",
  add: "adds integers: mostly the step of a loop, or of an address", sub: "subtracts integers", imul: "multiplies integers: mostly an address", inc: "plus 1", dec: "minus 1", neg: "changes the sign", shl: "shifts left: times a power of two", sal: "shifts left", sar: "shifts right with the sign", shr: "shifts right", and: "bits that both have", or: "bits that either has", xor: "bits that differ; of a register with itself: sets it to zero", not: "turns every bit", andn: "bits that only the second has", lock: "the next instruction is atomic: other cores wait for it",
  cmp: "compares, for the jump that follows", test: "compares with zero, for the jump that follows", jmp: "jumps: always", je: "jumps when equal", jne: "jumps when not equal: mostly the end of a loop", jl: "jumps when less", jle: "jumps when less or equal", jg: "jumps when greater", jge: "jumps when greater or equal", jb: "jumps when below", jbe: "jumps when below or equal", ja: "jumps when above", jae: "jumps when above or equal", js: "jumps when negative", jns: "jumps when not negative",
  cmov: "moves when a condition holds, without a jump", set: "1 or 0 from a condition", call: "calls a function", ret: "back to the caller", push: "saves a register on the stack", pop: "takes a register back from the stack", nop: "does nothing: moves the next loop to a good address", cqto: "prepares a division", idiv: "divides integers: slow",
};

const KINDS: readonly (readonly [RegExp, string])[] = [
  [/ps$/, "float32, every lane"], [/pd$/, "float64, every lane"], [/ss$/, "float32, one number"], [/sd$/, "float64, one number"],
  [/ph$/, "float16, every lane"], [/sh$/, "float16, one number"], [/(32|64|8|16)$/, "integers"], [/[bwdq]$/, "integers"], [/l$/, "32 bits"],
];

/** What the instruction of a line of assembly does, with its registers' width; "" where this table does not know it, or it is none. */
export function instructionNote(line: string): string {
  const name = /^\s+([a-z][a-z0-9]*)\b/.exec(line)?.[1];
  if (!name) return "";
  const width = /%zmm/.test(line) ? " · 512-bit vectors" : /%ymm/.test(line) ? " · 256-bit vectors" : "";
  const spilled = /\d*\(%r[sb]p/.test(line) && /mm\d/.test(line) ? " · on the stack: a register that did not fit" : "";
  const masked = /\{%k[1-7]\}/.test(line) ? " · only lanes of the mask" : "";
  for (const [base, kind] of bases(name)) {
    const found = Object.hasOwn(NOTES, base) ? NOTES[base] : undefined;
    if (found) return `${name}: ${found}${kind ? ` (${kind})` : ""}${width}${masked}${spilled}`;
  }
  return "";
}

function* bases(name: string): Generator<readonly [string, string]> {
  yield [name, ""];
  for (const [pattern, kind] of KINDS) {
    if (pattern.test(name)) yield [name.replace(pattern, ""), kind];
  }
  if (/^v\w+[dq]$/.test(name)) yield [name.replace(/u?[dqbw]$/, ""), "integers"];
  const condition = /^(cmov|set|vp?cmp|vpmov[sz]x)/.exec(name);
  if (condition) yield [condition[1]!, ""];
  if (/[ql]$/.test(name)) yield [name.slice(0, -1), ""];
}
