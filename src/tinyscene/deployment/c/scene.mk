# make -f scene.mk: the program `scene`, which names the scenes of PCM.
CFLAGS = -std=c99 -O2 -fno-strict-aliasing -ffp-contract=off -Wall -Wextra -Wno-unused-parameter -Werror

scene: scene.c scene_main.c scene.h
	$(CC) $(CFLAGS) scene.c scene_main.c -lm -o $@
