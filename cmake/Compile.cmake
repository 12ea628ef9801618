# Flags that every target gets.
set(UNCLIP_C_WARNINGS -Wall -Wextra -Wshadow -Wformat=2 -Wmissing-prototypes -Wstrict-prototypes
    -Wwrite-strings -Wno-missing-field-initializers)
add_compile_options("$<$<COMPILE_LANGUAGE:C>:${UNCLIP_C_WARNINGS}>")
add_compile_definitions(_GNU_SOURCE UNCLIP_VERSION="${PROJECT_VERSION}")
add_compile_options(-fno-math-errno -ffp-contract=off)
include_directories(${PROJECT_SOURCE_DIR})
# fault injection (common/fault.h): in every build but a release
if(CMAKE_BUILD_TYPE STREQUAL "Release" OR CMAKE_BUILD_TYPE STREQUAL "MinSizeRel")
  set(UNCLIP_FAULTS 0)
else()
  set(UNCLIP_FAULTS 1)
endif()
add_compile_definitions(UNCLIP_FAULTS=${UNCLIP_FAULTS})
if(UNCLIP_WERROR)
  add_compile_options(-Werror)
endif()
if(UNCLIP_SANITIZE)
  add_compile_options(-fsanitize=${UNCLIP_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${UNCLIP_SANITIZE})
endif()

# unclip_library(NAME LINKS...): a static library of every .c (and .cc) of this folder.
function(unclip_library name)
  file(GLOB sources CONFIGURE_DEPENDS *.c *.cc)
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} ${ARGN})
endfunction()

# unclip_program(NAME LINKS...): main.c makes the program; the other .c files of this folder make the
# library NAME-lib, so that unit tests can link them.
function(unclip_program name)
  file(GLOB sources CONFIGURE_DEPENDS *.c)
  list(REMOVE_ITEM sources ${CMAKE_CURRENT_SOURCE_DIR}/main.c)
  add_library(${name}-lib STATIC ${sources})
  target_link_libraries(${name}-lib PUBLIC ${ARGN})
  add_executable(${name} main.c)
  target_link_libraries(${name} PRIVATE ${name}-lib)
endfunction()

# unclip_unit_tests(LABEL LINKS...): each test_*.c of this folder is a cmocka program of its own.
function(unclip_unit_tests label)
  file(GLOB sources CONFIGURE_DEPENDS test_*.c)
  file(RELATIVE_PATH place ${PROJECT_SOURCE_DIR}/tests ${CMAKE_CURRENT_SOURCE_DIR})
  string(REPLACE "/" "." place ${place})
  foreach(source ${sources})
    get_filename_component(stem ${source} NAME_WE)
    set(test ${place}.${stem})
    add_executable(${test} ${source})
    target_link_libraries(${test} PRIVATE ${ARGN} PkgConfig::CMOCKA)
    target_compile_definitions(${test} PRIVATE SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    add_test(NAME ${test} COMMAND ${test})
    set_tests_properties(${test} PROPERTIES LABELS ${label} TIMEOUT 300
      ENVIRONMENT OMP_WAIT_POLICY=passive) # as the programs do: nn_wait_passively()
  endforeach()
endfunction()
