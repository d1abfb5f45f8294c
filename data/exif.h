/* How a camera was held: the one EXIF tag that changes pixels. Shared by the decoders. */
#ifndef REGRAFT_DATA_EXIF_H
#define REGRAFT_DATA_EXIF_H

#include "data/data.h"

/* Pictures beyond this many pixels are refused: a few bytes can claim any size. */
enum { PIXELS_MAX = 1 << 28 };

int exif_orientation(const unsigned char *tiff, size_t size); /* 1 to 8; 1 when unknown */
Status picture_set_upright(Picture *picture, int orientation, Error *err);

#endif
