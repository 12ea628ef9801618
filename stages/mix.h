/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arithmetic of CLIP image embeddings. Their direction is what they mean; their length is mixed
 * apart, in proportion. Source: unCLIP, section 3.2 (interpolations) and 3.3 (text diffs). Unlike
 * diffusers' community pipeline UnCLIPImageInterpolation, whose slerp takes the embeddings as they
 * are, the angle is that of the directions.
 */
#ifndef UNCLIP_STAGES_MIX_H
#define UNCLIP_STAGES_MIX_H

double mix_cosine(const float *a, const float *b, int d);

/* Between directions: place 0 is a's, 1 is b's. Opposite ones go straight. out [d] has a's length
   to b's. */
void mix_slerp(const float *a, const float *b, double place, int d, float *out);

/*
 * count embeddings [d] by their weights, of which at least one is above 0 → out [d]. Two: mix_slerp
 * at the second's share; more: the normalised weighted sum of directions.
 */
void mix_embeds(const float *const *embeds, const double *weights, int count, int d, float *out);

/* image turned by theta towards the difference of the text embeddings' directions, to - from;
   its length stays. Where the captions do not differ, it stays as it is. */
void mix_turn(const float *image, const float *from, const float *to, double theta, int d,
              float *out);

#endif
